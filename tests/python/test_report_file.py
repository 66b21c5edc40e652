"""A saved report comes back exactly, and nothing else comes back as a report."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.nets import Small

import transferbench
from transferbench.base.errors import InputError
from transferbench.base.results import DrawCounts
from transferbench.python.report import Report, TotalCost


@pytest.fixture
def full(report: Report) -> Report:
    """With every field filled."""
    draws = {"L2": DrawCounts((8, 8), 16, (3, 4), 5)}
    return replace(report, flags=("a-flag",), flag_rows={"a-flag": 3}, batch=7, draws=draws)


def assert_same(value: object, other: object) -> None:
    """Equal in type and value, down to the bits."""
    assert type(value) is type(other)
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(value, other, check_exact=True)
    elif isinstance(value, dict):
        assert list(value) == list(other)  # type: ignore[call-overload]
        for name in value:
            assert_same(value[name], other[name])  # type: ignore[index]
    elif isinstance(value, torch.Tensor):
        assert value.dtype == other.dtype  # type: ignore[attr-defined]
        assert torch.equal(value, other)  # type: ignore[arg-type]
    elif isinstance(value, Report | TotalCost):
        for part in fields(value):
            assert_same(getattr(value, part.name), getattr(other, part.name))
    else:
        assert value == other


@pytest.mark.parametrize("name", ["folder", "deep/one.safetensors"])
def test_every_field_comes_back(full: Report, tmp_path: Path, name: str) -> None:
    path = full.save(tmp_path / name)
    assert_same(Report.load(path), full)
    assert str(Report.load(str(path))) == str(full)
    # A second report in its place leaves nothing of the first.
    other = replace(full, n=3, clean=1 / 3, source_only=None, union=None)
    other.save(path)
    assert_same(Report.load(path), other)


def test_the_files_are_plain_json_and_safetensors(full: Report, tmp_path: Path) -> None:
    folder = full.save(tmp_path / "r")
    assert sorted(path.name for path in folder.iterdir()) == ["report.json", "x_adv.safetensors"]
    content = json.loads((folder / "report.json").read_text())
    assert content["report"]["clean"] == full.clean
    assert torch.equal(load_file(folder / "x_adv.safetensors")["L2"], full.x_adv["L2"])


def test_a_report_without_an_attacked_example_comes_back(small: Small, tmp_path: Path) -> None:
    wrong = (small.logits.argmax(1) + 1) % 10
    got = transferbench.evaluate(small.model, small.x[:4], wrong[:4], {"Linf": "0.06"}, n_iter=2)
    assert_same(Report.load(got.save(tmp_path / "r")), got)


def test_images_that_share_memory_are_saved(full: Report, tmp_path: Path) -> None:
    shared = replace(full, x_adv={"L2": full.x_adv["L2"], "Linf": full.x_adv["L2"]})
    assert_same(Report.load(shared.save(tmp_path / "s.safetensors")), shared)


def damaged(folder: Path, name: str, change: object) -> None:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("report.json", lambda text: text.replace(b'"clean": ', b'"clean": 1'), "damaged"),
        ("report.json", lambda text: text[:-20], "not a saved report"),
        ("report.json", lambda text: b"[]", "not a saved report"),
        ("report.json", lambda text: b"\xff\xfe", "not a saved report, or damaged"),
        ("report.json", lambda text: b"[" * 100_000, "not a saved report"),
        ("report.json", lambda text: text.replace(b'"version": 1', b'"version": 2'), "version 2"),
        ("x_adv.safetensors", lambda bits: bits[:-1] + bytes([bits[-1] ^ 1]), "damaged"),
        ("x_adv.safetensors", lambda bits: bits[:-8], "not a saved report"),
        ("x_adv.safetensors", lambda bits: pickle.dumps({}), "not a saved report"),
    ],
)
def test_what_is_damaged_is_refused_in_one_line(
    full: Report, tmp_path: Path, name: str, change: object, complaint: str
) -> None:
    folder = full.save(tmp_path / "r")
    damaged(folder, name, change)
    with pytest.raises(InputError, match=complaint) as caught:
        Report.load(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_report_is_refused(full: Report, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(2)}, weights)
    for path in (weights, tmp_path, tmp_path / "missing", Path(__file__)):
        with pytest.raises(InputError, match="report") as caught:
            Report.load(path)
        assert len(str(caught.value).splitlines()) == 1
    folder = full.save(tmp_path / "r")
    (folder / "x_adv.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(InputError, match="other images"):
        Report.load(folder)
    with pytest.raises(InputError, match="cannot be saved"):
        full.save(Path(__file__))

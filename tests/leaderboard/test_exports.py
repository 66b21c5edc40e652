"""Exports: RobustBench's files and LaTeX."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from support.records import record, stamped, three

from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.leaderboard import build, exports, published_numbers
from transferbench.leaderboard.rows import leaderboard_rows
from transferbench.models.loaders import robustbench_package
from transferbench.results.records import dump

THEIRS = (
    '{"link": "https://arxiv.org/abs/1905.13736", "name": "Unlabeled Data", "authors": "A, B", '
    '"additional_data": true, '
    '"number_forward_passes": 1, "dataset": "cifar10", "venue": "NeurIPS 2019", "architecture": "WideResNet-28-10", '
    '"eps": "8/255", "clean_acc": "89.69", "reported": "62.5", "autoattack_acc": "59.53", "external": "59.50"}'
)


def test_a_file_read_and_written_is_the_same_bytes() -> None:
    assert exports.dump(exports.read(THEIRS)) == THEIRS
    for text in exports.model_infos(three()).values():
        assert exports.dump(exports.read(text)) == text


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"89.69"', "89.69", "clean_acc"),
        ('"link"', '"lnk"', "link"),
        ("true", '"yes"', "additional_data"),
        ("{", "[{", ""),
    ],
)
def test_what_robustbench_would_not_read_is_refused(old: str, new: str, complaint: str) -> None:
    with pytest.raises(InputError, match=f"model_info: .*{complaint}"):
        exports.read(THEIRS.replace(old, new, 1))


def test_every_norm_is_a_file_that_our_own_reader_finds(tmp_path: Path) -> None:
    found = exports.model_infos(three())
    assert set(found) == {
        *(f"model_info/digits/{norm}/whole-s0.json" for norm in ("Linf", "L2", "L1")),
        "model_info/digits/Linf/part-s0.json",
    }
    info = json.loads(found["model_info/digits/L2/whole-s0.json"])
    assert (info["eps"], info["clean_acc"], info["reported"]) == ("8/255", "90.00", "55.00")
    assert "autoattack_acc" not in info, "APGD alone is not AutoAttack"
    assert info["external"] == "55.00"
    assert info["eps_by_norm"] == dict.fromkeys(("Linf", "L2", "L1"), "8/255")
    assert info["unreliable"] is True, "the record has a flag"
    assert "first 40 test examples, not by AutoAttack" in info["footnote"]
    standard = [{"id": id} for id in ("apgd-ce", "apgd-t", "fab-t", "square")]
    whole = three()[1]
    chains = [chain.model_copy(update={"attacks": standard}) for chain in whole.chains]
    found = exports.model_infos([three()[0], whole.model_copy(update={"chains": chains})])
    for name, text in found.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    rates = {(number.robustbench, number.measure): number.value for number in published_numbers.robustbench(tmp_path)}
    assert rates["RB_whole-s0@digits/L2", "L2"] == 55.0


@pytest.mark.parametrize("attacks", [("apgd-ce", "apgd-t"), ("apgd-ce", "apgd-t", "fab-t", "square")])
def test_robustbench_lists_them_by_its_own_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], attacks: tuple[str, ...]
) -> None:
    """It reads the files of models that it knows, by data set and threat."""
    robustbench_package.model_dicts()  # makes robustbench importable
    whole = three()[1]
    chains = [chain.model_copy(update={"attacks": [{"id": id} for id in attacks]}) for chain in whole.chains]
    found = exports.model_infos([whole.model_copy(update={"chains": chains, "target_dataset": "cifar10"})])
    for norm, id in (("Linf", "Carmon2019Unlabeled"), ("L2", "Augustin2020Adversarial")):
        path = tmp_path / f"model_info/cifar10/{norm}/{id}.json"
        path.parent.mkdir(parents=True)
        path.write_text(found[f"model_info/cifar10/{norm}/{whole.victim}.json"])
    monkeypatch.chdir(tmp_path)
    utils = importlib.import_module("robustbench.utils")
    for norm in ("Linf", "L2"):
        utils.list_available_models("cifar10", norm)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "2019" in line or "2020" in line]
        chain = whole.chain(norm)
        assert chain is not None
        rates = [100 * whole.clean.count / whole.n, 100 * chain.robust.count / whole.n]
        assert [float(cell) for cell in re.findall(r"([\d.]+)%", line)] == rates


def test_the_hub_reads_its_evaluation_results() -> None:
    """By Hugging Face's own reader; the numbers are those of leaderboard.csv."""
    rows = {str(row["victim"]): row for row in leaderboard_rows(three())}
    files = exports.eval_results(three())
    assert set(files) == {f"huggingface/{victim}/.eval_results/transferbench.yaml" for victim in rows}
    for victim, row in rows.items():
        text = files[f"huggingface/{victim}/.eval_results/transferbench.yaml"]
        entries = parse_eval_result_entries(yaml.safe_load(text))
        names = {"clean": "clean_acc", "Linf": "linf_acc", "L2": "l2_acc", "L1": "l1_acc", "union": "union_acc"}
        expected = {name: float(row[column]) for name, column in names.items() if row[column] != ""}
        assert {one.task_id.removeprefix("test-"): one.value for one in entries} == expected
        assert all(one.dataset_id == "digits" and "95 % interval" in str(one.notes) for one in entries)


def test_latex_escapes_every_name_and_has_every_rate() -> None:
    hostile = record("v_1&x-s0", method=r"\input{x}_%$", source="s#~^")
    text = exports.latex([*three(), hostile])
    assert r"\textbackslash input\{x\}\_\%\$" in text
    assert r"s\#\textasciitilde \textasciicircum" in text
    assert text.count(r"\\") == 1 + len([*three(), hostile]) - 1
    assert r"\toprule" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")][1:]
    assert {line.count(" & ") for line in body} == {text.splitlines()[3].count(" & ")}


def test_a_search_in_bf16_is_named_in_every_table() -> None:
    whole = next(one for one in three() if one.victim == "whole-s0")
    chains = [one.model_copy(update={"precision": "bf16", "searched_again": 2}) for one in whole.chains]
    records = [stamped(whole.model_copy(update={"chains": chains}))]
    rendered = build.render(records)
    heads, _, cells = [line.split("|") for line in rendered["leaderboard.md"].splitlines() if line.startswith("|")][:3]
    assert cells[[head.strip() for head in heads].index("search")].strip() == "bf16"
    assert "bf16" in rendered["leaderboard.csv"]
    assert "& bf16 " in exports.latex(records)


def test_the_command_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "records").mkdir()
    for one in three():
        (tmp_path / "records" / f"{one.victim}.json").write_text(dump(one))
    assert main(["leaderboard", str(tmp_path), "--export", "robustbench,latex"]) == 0
    assert len([path for path in (tmp_path / "exports").rglob("*") if path.is_file()]) == 5
    assert main(["leaderboard", str(tmp_path), "--export", "robustbnch"]) == 2
    assert "did you mean 'robustbench'" in capsys.readouterr().err

"""External evaluations: points that our own run exported are imported again; hostile files; claims stay claims."""

from __future__ import annotations

import csv
import importlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.tiny_suite import run_tiny

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.data import View
from transferbench.leaderboard import build
from transferbench.models import trained
from transferbench.models.loaders import robustbench_package
from transferbench.results.external import FOLDER, read_all
from transferbench.results.records import Record, read
from transferbench.results.records import read_all as read_records
from transferbench.workflows import exported_points
from transferbench.workflows.external_evaluations import Author, import_points, import_verdicts, threat_of
from transferbench.workflows.point_files import read_points

VICTIM = "finetune-s0"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("external") / "out"
    run_tiny(root)
    exported_points.write(root, read_records(root))
    return root


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def record_of(run: Path) -> Record:
    return read(run / "records" / f"{VICTIM}.json")


def points_of(run: Path, norm: str = "Linf") -> Path:
    return run / "exports" / "points" / f"{VICTIM}-{norm}.pt"


def clean(run: Path) -> torch.Tensor:
    return data.load("digits", "test", None, View()).first(record_of(run).n).pixels


def into(run: Path, file: Path, norm: str = "Linf", eps: str = "", **author: Any) -> Any:
    return import_points(run, VICTIM, threat_of(run, VICTIM, norm, eps), file, Author("somebody", **author))


def test_robustbench_computes_the_number_that_an_exported_file_must_give(whole: Path) -> None:
    robustbench_package.model_dicts()  # makes robustbench importable
    clean_accuracy = importlib.import_module("robustbench.utils").clean_accuracy
    victim = trained.load(whole / "victims" / VICTIM)
    labels = data.load("digits", "test", None, View()).first(record_of(whole).n).labels
    readme = (whole / "exports" / "points" / "README.md").read_text()
    for norm in ("Linf", "L2", "L1"):
        points = torch.load(points_of(whole, norm), weights_only=True)
        accuracy = clean_accuracy(victim.model.eval(), points, labels)
        assert f"| {VICTIM}-{norm}.pt " in readme
        line = next(line for line in readme.splitlines() if f"| {VICTIM}-{norm}.pt " in line)
        assert f"| {100 * accuracy:.2f} |" in line


def test_our_own_points_give_our_own_verdicts(run: Path) -> None:
    for norm in ("Linf", "L2", "L1"):
        chain = record_of(run).chain(norm)
        assert chain is not None
        evaluation = into(run, points_of(run, norm), norm, claimed=12.5)
        assert evaluation.fooled.number == record_of(run).clean.number & ~chain.robust.number
        assert (evaluation.inadmissible, evaluation.whole) == (0, (chain.robust.count, record_of(run).n))
    build.rebuild(run)
    rows = list(csv.DictReader((run / "external.csv").open()))
    assert [row["norm"] for row in rows] == ["L1", "L2", "Linf"]
    assert all(row["robust_acc"] == row["own_acc"] == row["best_known"] for row in rows)
    assert rows[0]["claimed"] == "12.50"
    assert "## External evaluations" in (run / "leaderboard.md").read_text()
    before = next(row for row in csv.DictReader((run / "leaderboard.csv").open()) if row["victim"] == VICTIM)
    shutil.rmtree(run / FOLDER)
    build.rebuild(run)
    assert before == next(row for row in csv.DictReader((run / "leaderboard.csv").open()) if row["victim"] == VICTIM)


@pytest.mark.parametrize("kind", ["pt", "dictionary", "npy", "npz", "safetensors"])
def test_every_kind_of_file_is_read(run: Path, tmp_path: Path, kind: str) -> None:
    points = torch.load(points_of(run), weights_only=True)
    file = tmp_path / f"points.{ {'dictionary': 'pth'}.get(kind, kind) }"
    if kind == "pt":
        torch.save(points, file)
    elif kind == "dictionary":
        torch.save({"adv_complete": points, "labels": torch.zeros(len(points))}, file)
    elif kind == "npy":
        np.save(file, points.numpy())
    elif kind == "npz":
        np.savez(file, x_adv=points.numpy(), y=np.zeros(len(points)))
    else:
        save_file({"points": points}, file)
    assert into(run, file).fooled == into(run, points_of(run)).fooled


def test_points_outside_the_ball_or_no_image_are_no_attack(run: Path, tmp_path: Path) -> None:
    points = torch.load(points_of(run), weights_only=True)
    images = clean(run)
    points[:] = 1 - images
    points[0], points[1] = torch.nan, images[1] - 2
    torch.save(points, tmp_path / "far.pt")
    evaluation = into(run, tmp_path / "far.pt")
    assert (evaluation.fooled.count, evaluation.inadmissible) == (0, len(points))
    assert evaluation.whole == (record_of(run).clean.count, len(points)), "nothing was attacked"
    wide = into(run, tmp_path / "far.pt", eps="1")
    assert wide.inadmissible == 2
    assert wide.fooled.count > 0


def test_a_claim_is_shown_and_not_believed(run: Path, tmp_path: Path) -> None:
    table = tmp_path / "verdicts.csv"
    assert main(["runs", str(run), "--verdicts", str(table)]) == 0
    evaluation = import_verdicts(run, VICTIM, threat_of(run, VICTIM, "Linf", ""), table, Author("somebody"))
    chain = record_of(run).chain("Linf")
    assert chain is not None
    assert evaluation.fooled.number == record_of(run).clean.number & ~chain.robust.number
    build.rebuild(run)
    (row,) = csv.DictReader((run / "external.csv").open())
    assert (row["evidence"], row["best_known"], row["whole"]) == ("verdicts", "", "")


class _Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


HOSTILE = {
    "a pickle that runs code": lambda file: file.write_bytes(pickle.dumps(_Harm())),
    "text": lambda file: file.write_text("none"),
    "nothing": lambda file: file.write_bytes(b""),
    "a number": lambda file: torch.save(torch.tensor(1.0), file),
    "classes": lambda file: torch.save(torch.zeros(24, 1, 8, 8, dtype=torch.int64), file),
    "other images": lambda file: torch.save(torch.zeros(24, 3, 32, 32), file),
    "too few": lambda file: torch.save(torch.zeros(3, 1, 8, 8), file),
    "too many": lambda file: torch.save(torch.zeros(10**4, 1, 8, 8), file),
    "several without a name": lambda file: torch.save({"a": torch.zeros(24, 1, 8, 8), "b": torch.zeros(1)}, file),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_other_files_are_refused_in_a_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = tmp_path / "hostile.pt"
    HOSTILE[name](file)
    words = [
        "leaderboard",
        "import",
        str(run),
        "--victim",
        VICTIM,
        "--norm",
        "Linf",
        "--by",
        "x",
        "--points",
        str(file),
    ]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1), "nothing was run"
    assert not (run / FOLDER).exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"victim": "other-s0"}, "of which there is no record"),
        ({"weights_sha256": "0" * 64}, "other weights"),
        ({"fooled": {"n": 24, "hex": "ffffff"}}, "wrong on clean"),
        ({"by": ""}, "by"),
        ({"whole": None}, "points have a count"),
    ],
)
def test_a_changed_evaluation_is_refused(run: Path, change: dict[str, Any], complaint: str) -> None:
    evaluation = into(run, points_of(run))
    path = run / FOLDER / evaluation.file_name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=complaint):
        read_all(run, read_records(run))
    assert any(complaint in line for line in build.check(run))


def test_the_command_judges_and_writes_the_board_anew(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["leaderboard", "import", str(run), "--victim", VICTIM, "--norm", "Linf", "--by", "A. Other"]
    assert main([*words, "--points", str(points_of(run)), "--claim", "3", "--link", "https://example.org"]) == 0
    out = capsys.readouterr().out
    assert "by its points as they are judged here; claimed 3.00 %" in out
    assert (run / "external.csv").is_file()
    assert build.check(run) == [line for line in build.check(run) if "verified" in line]
    assert main([*words, "--points", "a", "--verdicts", "b"]) == 2
    assert main([*words, "--points", str(points_of(run)), "--claim", "101"]) == 2
    assert main(["leaderboard", "import", str(run), "--victim", "none", "--norm", "Linf", "--by", "x"]) == 2


def _bad(name: str, image: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
    made: dict[str, Any] = {
        "sparse": lambda: image.to_sparse(),
        "meta": lambda: image.to("meta"),
        "repeated": lambda: torch.zeros(1).expand(2**40, 1, 8, 8),
        "no tensor": dict,
    }
    return cast("torch.Tensor | dict[str, torch.Tensor]", made[name]())


@pytest.mark.parametrize("name", ["sparse", "meta", "repeated", "no tensor"])
@pytest.mark.filterwarnings("error")
def test_a_tensor_that_is_no_plain_one_is_refused(tmp_path: Path, name: str) -> None:
    torch.save(_bad(name, torch.rand(3, 1, 8, 8)), tmp_path / "points.pt")
    with pytest.raises(InputError, match=r"dense one|more than 16 GiB|tensors none"):
        read_points(tmp_path / "points.pt")


def test_a_damaged_or_lying_file_is_refused_and_byte_order_is_not(tmp_path: Path) -> None:
    shape = "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 1, 8, 8), }".ljust(117)
    for name, content in {
        "a.pt": b"hello",
        "a.npz": b"PK\x03\x04",
        "a.npy": b"\x93NUMPY\x01\x00\x76\x00" + shape.encode() + b"\n",
        "b.npy": b"\x93NUMPY\x01\x00\x76\x00" + shape.replace("(", "((((").encode()[:117] + b"\n",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="no file of tensors"):
            read_points(tmp_path / name)
    np.save(tmp_path / "text.npy", np.array(["a"]))
    with pytest.raises(InputError, match="no file of tensors"):
        read_points(tmp_path / "text.npy")
    values = np.linspace(0, 1, 64, dtype=">f4").reshape(1, 1, 8, 8)
    np.save(tmp_path / "big.npy", values)
    assert read_points(tmp_path / "big.npy").numpy().tolist() == values.tolist()


def test_nobody_elses_evaluation_is_replaced(run: Path) -> None:
    first = import_points(run, VICTIM, threat_of(run, VICTIM, "Linf", ""), points_of(run), Author("a/b"))
    with pytest.raises(InputError, match="has the points of 'a/b'"):
        import_points(run, VICTIM, threat_of(run, VICTIM, "Linf", ""), points_of(run), Author("a_b"))
    import_points(run, VICTIM, threat_of(run, VICTIM, "Linf", "0.01"), points_of(run), Author("a/b"))
    assert first in read_all(run, read_records(run))
    assert len(list((run / FOLDER).iterdir())) == 2


@pytest.mark.parametrize(
    "words", [["--by", ""], ["--by", "a\nb"], ["--by", "a" * 201], ["--by", "a", "--link", "javascript:alert(1)"]]
)
def test_an_author_that_is_no_line_of_text_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    given = ["--victim", VICTIM, "--norm", "Linf", "--points", str(points_of(run)), *words]
    assert main(["leaderboard", "import", str(run), *given]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (run / FOLDER).exists()

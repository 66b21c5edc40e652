"""A second evaluation never replaces the record of something else in the same folder; early refusals leave nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from transferbench.cli.main import main

EVAL = "eval --model letters-madry --norms Linf --attacks fgsm --n 8 --out e"


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(EVAL.split()) == 0
    return tmp_path / "e" / "records" / "letters-madry.json"


def test_other_radii_seeds_and_attacks_are_refused(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = record.read_bytes()
    for other, complaint in (
        (f"{EVAL} --eps Linf=0.2", "another radius (Linf"),
        (f"{EVAL} --seed 1", "another seed (0, not 1)"),
        (EVAL.replace("fgsm", "pgd"), "other attacks in Linf"),
        (EVAL.replace("--norms Linf --attacks fgsm", "--norms L2 --attacks apgd-ce"), "left out now"),
    ):
        capsys.readouterr()
        assert main(other.split()) == 2
        assert complaint in capsys.readouterr().err
        assert record.read_bytes() == before
    assert main(EVAL.split()) == 0
    larger = EVAL.replace("--n 8", "--n 12")
    assert main(larger.split()) == 0, "more examples of the same replace the record"
    capsys.readouterr()
    assert main(EVAL.split()) == 2
    assert "more examples (12, not 8)" in capsys.readouterr().err
    assert main([*larger.split(), "--source", "letters-natural"]) == 0, "so do further attacks"
    capsys.readouterr()
    assert main(larger.split()) == 2
    assert "attacks that hold letters-natural alone" in capsys.readouterr().err
    assert main([*larger.split(), "--source", "letters-madry"]) == 2
    assert "another source (letters-natural, not letters-madry)" in capsys.readouterr().err


def test_another_engine_is_another_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["eval", "--model", "letters-madry", "--norms", "Linf", "--attacks", "apgd-ce", "--n", "4", "--out", "e"]
    assert main(words) == 0
    capsys.readouterr()
    assert main([*words, "--backend", "autoattack"]) == 2
    assert "another engine in Linf" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["file", "file/x", "x" * 300])
@pytest.mark.parametrize("command", ["eval", "train", "run", "dry-run"])
def test_a_folder_that_cannot_be_written_is_found_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: str, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    words = {
        "eval": "eval --model letters-madry",
        "train": "train --plugin natural --target digits",
        "run": "run letters-to-digits",
        "dry-run": "run letters-to-digits --dry-run",
    }[command]
    assert main([*words.split(), "--out", out]) == 2
    error = capsys.readouterr().err
    assert "cannot write there" in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_dry_run_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "croce2021", "--dry-run"]) == 2
    out, error = capsys.readouterr()
    assert "jobs (" in out
    assert "cifar-10-batches-py missing" in error
    assert list(tmp_path.iterdir()) == []

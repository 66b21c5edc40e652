"""Subsets of classes from the command line to the record: a suite between two halves, `train`, `eval`, `verify`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_suite import TINY, Recorder, run_tiny, tiny

from transferbench.base.errors import InputError
from transferbench.base.settings import RunSettings
from transferbench.cli.main import main
from transferbench.leaderboard import page
from transferbench.models import cards, victims
from transferbench.results.records import read_all
from transferbench.results.verification import verify
from transferbench.scheduling.plan import plan
from transferbench.workflows import run_suite

SOURCE, TARGET = "letters[0-11]", "letters[Z,12-24]"


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny suite from one half of the letters to the other."""
    text = TINY.replace("_dataset: letters", f'_dataset: "{SOURCE}"').replace(
        "_dataset: digits", f'_dataset: "{TARGET}"'
    )
    root, reporter = tmp_path_factory.mktemp("halves") / "out", Recorder()
    planned = plan(tiny(root.parent, text), (0,))
    assert run_suite.absent(planned, RunSettings()) == []
    run_tiny(root, reporter, text)
    assert f"{TARGET} test: labels 0 to 13 are the labels 25,12-24 of letters (Z, M, N, O, P, ..., Y)" in reporter.notes
    return root


def test_records_and_cards_know_the_subset(halves: Path) -> None:
    records = {record.victim: record for record in read_all(halves)}
    assert set(records) == {"letters_0-11-natural-s0", "probe-s0", "finetune-s0"}
    victim = records["finetune-s0"]
    assert (victim.source_dataset, victim.target_dataset) == (SOURCE, TARGET)
    assert len(victim.class_counts) == 14
    assert any("of letters" in note for note in victim.data_notes)
    card = cards.read(halves / "cards" / "letters_0-11-natural-s0.md")
    assert (card.dataset, card.classes) == (SOURCE, tuple("ABCDEFGHIJKL"))
    assert "datasets:\n- letters\n" in (halves / "cards" / "letters_0-11-natural-s0.md").read_text()
    page.write(halves, list(records.values()))
    assert TARGET in (halves / "index.html").read_text()
    assert f'"{TARGET}"' in (halves / "leaderboard.csv").read_text(), "a comma inside a cell"


def test_the_run_is_verified(halves: Path) -> None:
    assert verify(halves) == []


def test_a_network_is_evaluated_on_its_own_classes_alone(
    halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source, words = str(halves / "victims" / "letters_0-11-natural-s0"), ["--norms", "Linf", "--attacks", "fgsm"]
    assert main(["eval", "--model", source, "--n", "8", "--out", "own", *words]) == 0
    assert "letters[0-11] test, first 8" in capsys.readouterr().out
    refused = {
        "letters": "has 12 classes, letters has 26",
        TARGET: r"has 12 classes, letters[Z,12-24] has 14: evaluate it on letters, or train a head for the subset",
        "letters[12-23]": "was trained on the classes of letters[0-11], those of letters[12-23] are others",
        "letters[0-26]": "there is no class 26; did you mean 25?",
        "letters[0-": "close the bracket",
    }
    for dataset, complaint in refused.items():
        assert main(["eval", "--model", source, "--dataset", dataset, *words]) == 2
        assert complaint in capsys.readouterr().err
    assert main(["eval", "--model", source, "--dataset", "letters[0-5,6-11]", "--n", "8", *words]) == 0


def test_a_wider_network_is_refused_with_the_reason(small_victim: victims.Victim) -> None:
    digits = replace(small_victim, card=small_victim.card.model_copy(update={"dataset": "digits"}))
    with pytest.raises(
        InputError, match=r"has 10 classes, digits\[0-4\] has 5: evaluate it on digits, or train a head"
    ):
        digits.check_fits("digits[0-4]", (1, 8, 8), tuple("01234"))
    numbers = digits.card.model_copy(update={"dataset": "digits[0-4]", "classes": tuple("01234")})
    five = replace(small_victim, card=numbers)
    five.check_fits("digits[0-4]", (1, 8, 8), tuple("01234"))
    with pytest.raises(InputError, match=r"trained on the classes of digits\[0-4\], those of digits\[5-9\] are others"):
        five.check_fits("digits[5-9]", (1, 8, 8), tuple("56789"))


def test_train_takes_a_subset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--source", "letters-madry", "--set", "steps=3", "--set", "batch_size=16", "--out", "ft"]
    assert main(["train", "--plugin", "finetune", "--target", "digits[1,3,5,7]", *words]) == 0
    assert cards.read(tmp_path / "ft" / "README.md").classes == ("1", "3", "5", "7")
    capsys.readouterr()
    assert main(["train", "--plugin", "finetune", "--target", "digits[1,11]", *words[:-1], "other"]) == 2
    assert "there is no class 11; did you mean 9?" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()

"""load_model and load_dataset give what `eval` attacks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import transferbench
from transferbench import data
from transferbench.base.errors import InputError
from transferbench.cli import main as cli
from transferbench.models.victim import Victim


def test_evaluate_on_them_gives_the_verdicts_of_the_command(tmp_path: Path) -> None:
    """The command decides about the same digits with the same random starts."""
    words = ["eval", "--model", "letters-madry", "--norms", "Linf,L2", "--attacks", "apgd-ce:n_iter=3", "--n", "24"]
    assert cli.main([*words, "--seed", "3", "--out", str(tmp_path / "eval")]) == 0
    results = transferbench.read_results(tmp_path / "eval")
    model = transferbench.load_model("letters-madry")
    letters = transferbench.load_dataset("letters", n=24)
    threats = {"Linf": "0.1", "L2": "0.4"}
    report = transferbench.evaluate(model, letters, threats=threats, attacks="apgd-ce:n_iter=3", seed=3, progress=False)
    shared = ["fooled", "attack", "try", "pred", "distance", "tie"]
    assert results.verdicts.chain.tolist() == report.verdicts.threat.tolist()
    assert results.verdicts.example.tolist() == letters.ids.tolist() * 2
    assert results.verdicts[shared].equals(report.verdicts[shared])
    (row,) = results.rows.to_dict("records")
    assert row["linf_acc"] == pytest.approx(100 * report.robust["Linf"], abs=0.005)
    assert row["clean_acc"] == pytest.approx(100 * report.clean, abs=0.005)
    (cost,) = results.costs.to_dict("records")
    assert cost["wasted"] == report.cost.wasted


def test_a_model_is_loaded_with_its_card() -> None:
    victim = transferbench.load_model("letters-madry")
    assert isinstance(victim, Victim)
    assert not victim.model.training
    assert victim.card.threats["Linf"].text == "0.1"
    letters = transferbench.load_dataset("letters", "test", 50)
    with torch.no_grad():
        assert (victim.model(letters.pixels).argmax(1) == letters.labels).float().mean() > 0.8


def test_splits_are_the_published_ones() -> None:
    for split in data.SPLITS:
        got, expected = transferbench.load_dataset("digits", split), data.load("digits", split)
        assert got.fingerprint == expected.fingerprint
    assert len(transferbench.load_dataset("digits[0-4]", n=7)) == 7
    assert len(transferbench.load_dataset("digits[0-4]").classes) == 5


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: transferbench.load_model("letters-mad"), "letters-madry"),
        (lambda: transferbench.load_model("missing/folder"), "no such folder"),
        (lambda: transferbench.load_model("letters-madry", network="small-resnet"), "weights in a file"),
        (lambda: transferbench.load_model("file:x.pt", network="small-resne"), "small-resnet"),
        (lambda: transferbench.load_dataset("digit"), "digits"),
        (lambda: transferbench.load_dataset("digits", "tests"), "test"),  # type: ignore[arg-type]
        (lambda: transferbench.load_dataset("digits", n=0), "at least 1"),
        (lambda: transferbench.load_dataset("digits", n=10**6), "ask for at most"),
        (lambda: transferbench.load_dataset("flowers102"), "give model= or preprocessing="),
        (lambda: transferbench.load_dataset("digits", model="letters-madry"), "load_model"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_one_line(call: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        call()  # type: ignore[operator]
    assert len(str(caught.value).splitlines()) == 1

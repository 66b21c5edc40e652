"""`eval` of what is no chain of attacks on the victim: source-only threats alone, randomised victims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support import evaluation_models
from support.photographs import crops
from torch import Tensor

import transferbench
from transferbench.cli.main import main

MODELS = "python:support.evaluation_models"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photographs in three classes: most are what the victim says they are."""
    folder = tmp_path_factory.mktemp("photographs")
    x = crops(24)
    with torch.no_grad():
        labels = evaluation_models.victim()(x).argmax(1)
    labels[::6] = (labels[::6] + 1) % 3
    for number, (image, label) in enumerate(zip(x, labels, strict=True)):
        place = folder / str(int(label))
        place.mkdir(exist_ok=True)
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(place / f"{number:02}.png")
    for label in range(3):
        (folder / str(label)).mkdir(exist_ok=True)
    return folder


def only_record(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "records").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def evaluated(photographs: Path, out: Path, *words: str) -> int:
    return main(["eval", "--dataset", f"folder:{photographs}", "--out", str(out), "--allow-low-accuracy", *words])


def images_of(photographs: Path) -> tuple[Tensor, Tensor, Tensor]:
    from transferbench import data

    test = data.load(f"folder:{photographs}", "test")
    return test.pixels, test.labels, test.ids


def test_renofeations_own_evaluation(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", f"{MODELS}:victim", "--source", f"{MODELS}:public", "--norms", "renofeation"]
    assert evaluated(photographs, tmp_path / "out", *words) == 0
    printed = capsys.readouterr().out
    record = only_record(tmp_path / "out")
    assert record["chains"] == []
    attack, *made, control = record["crafted"]
    assert [one["attack"] for one in made] == [
        {"id": id, "of": "pretrained-neuron"} for id in ("shuffled", "other-image")
    ]
    assert attack["attack"] == {"id": "pretrained-neuron", "neurons": 1, "n_iter": 40}
    assert (attack["norm"], attack["eps"]) == ("renofeation", "0.1")
    assert control["attack"] == {"id": "random-sign", "draws": 1}
    x, y, ids = images_of(photographs)
    report = transferbench.evaluate(
        evaluation_models.victim(),
        x,
        y,
        {"renofeation": "0.1"},
        source=evaluation_models.public(),
        ids=ids,
    )
    assert report.robust == {}
    assert report.source_only is not None
    flipped, correct = report.source_only.flipped[0], report.source_only.correct[0]
    assert bin(int(record["clean"]["hex"], 16)).count("1") == correct
    assert bin(int(attack["flips"][0]["hex"], 16)).count("1") == flipped
    assert f"Attack Success Rate, as Renofeation's evaluator prints it: {100 * flipped / correct:.2f}" in printed
    assert main(["verify", str(tmp_path / "out")]) == 0
    # Other parameters are another measurement: it does not replace this one.
    changed = ["--attacks", "pretrained-neuron:neuron=3:neurons=2:m=500:n_iter=5", "--eps", "renofeation=0.2"]
    assert evaluated(photographs, tmp_path / "out", *words, *changed) == 2
    assert evaluated(photographs, tmp_path / "other", *words, *changed) == 0
    attack, *_, control = only_record(tmp_path / "other")["crafted"]
    assert attack["eps"] == "0.2"
    assert len(attack["flips"]) == len(control["flips"]) == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--norms", "renofeation"], "name it (--source"),
        (["--norms", "L2", "--source", "x"], "Linf and renofeation"),
        (["--norms", "Linf", "--eps", "L2=1"], "--eps names L2"),
        (["--norms", "Linf,linf"], "did you mean 'Linf'"),
        (["--attacks", "apgd-ce:restarts=-1"], "restarts=-1 must be"),
        (["--attacks", "standard"], "--backend autoattack"),
        (["--attacks", "square", "--norms", "Linf"], "reference's alone"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    assert evaluated(photographs, tmp_path / "out", "--model", f"{MODELS}:victim", *words) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_victim_whose_noise_cannot_be_seeded(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", f"{MODELS}:own_generator", "--norms", "Linf,L2", "--eps", "Linf=0.01,L2=0.1"]
    assert evaluated(photographs, tmp_path / "out", *words, "--attacks", "pgd:k=2:eot=1") == 0
    record = only_record(tmp_path / "out")
    clean = int(record["clean"]["hex"], 16)
    assert all(int(chain["robust"]["hex"], 16) & ~clean == 0 for chain in record["chains"])
    assert record["protocol"] == "attacks as asked for: pgd:eot=1:k=2"
    assert main(["verify", str(tmp_path / "out")]) == 0


def test_a_randomised_victim(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", f"{MODELS}:noisy", "--norms", "Linf", "--eps", "Linf=0.02", "--attacks", "apgd-ce:n_iter=4"]
    assert evaluated(photographs, tmp_path / "out", *words) == 0
    printed = capsys.readouterr().out
    record = only_record(tmp_path / "out")
    (chain,) = record["chains"]
    robust = bin(int(chain["robust"]["hex"], 16)).count("1")
    assert chain["draws"]["robust"][0] == robust
    assert chain["draws"]["eot"] == [20]
    assert f"gradients of 20 draws, verdicts on the mean of 20 others: {robust} of 24 robust" in printed
    x, y, ids = images_of(photographs)
    report = transferbench.evaluate(
        evaluation_models.noisy(), x, y, {"Linf": "0.02"}, attacks="apgd-ce:n_iter=4", ids=ids
    )
    assert report.draws["Linf"].robust == tuple(chain["draws"]["robust"])
    assert main(["verify", str(tmp_path / "out")]) == 0

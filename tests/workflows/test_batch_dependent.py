"""`eval`, `run` and `evaluate` treat a network whose answers depend on its batch alike: one job, one batch size."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch

import transferbench
from transferbench import data
from transferbench.cli.main import main

MODULE = """
import torch
from transferbench.models import victims

class Mixing(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = victims.load("letters-madry").model
        self.eval()

    def forward(self, x):
        z = self.net(x)
        return z - 0.3 * z.mean(0, keepdim=True)

def mixing():
    return Mixing()

mixing.input_shape, mixing.classes, mixing.fingerprint = (1, 8, 8), 26, "1"
"""

SUITE = """
name: mixed
title: a suite for tests
n: 200
threats: {Linf: "0.1"}
protocol:
  description: "tiny"
  chains: {Linf: [{id: pgd, k: 3}]}
training:
  source_dataset: letters
  target_dataset: digits
  sources: [{name: public, model: "python:mixing_model:mixing"}]
  rows: [{name: scratch, method: scratch, source: public, network: small-resnet, set: {steps: 1}}]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixed")
    (root / "mixing_model.py").write_text(MODULE)
    (root / "mixed.yaml").write_text(SUITE)
    return root


def record_of(folder: Path) -> dict[str, Any]:
    return next(
        found
        for path in (folder / "records").glob("*.json")
        if "mixing" in (found := json.loads(path.read_text()))["victim"]
    )


def attack_jobs(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "store.sqlite3") as db:
        rows = db.execute("SELECT specification FROM jobs WHERE kind = 'attack' AND label LIKE '%mixing%'").fetchall()
    return [row[0] for row in rows]


def test_all_three_ways_give_the_same_verdicts(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    common = ["--batch-size", "48", "--out"]
    words = "eval --model python:mixing_model:mixing --dataset letters --norms Linf --eps Linf=0.1 --attacks pgd"
    # The suite's chain has 3 steps, eval's --attacks the default 20: the chain of a file is used for both.
    assert main([*words.split(), "--n", "200", *common, "eval"]) == 0
    printed = capsys.readouterr().out
    assert "judged with 48 rows in flight" in printed
    assert "mixes-rows" in printed
    assert main(["run", "mixed.yaml", *common, "run"]) == 0
    by_eval, by_run = record_of(place / "eval"), record_of(place / "run")
    assert by_eval["batch"] == by_run["batch"] == 48
    for folder in ("eval", "run"):
        (job,) = attack_jobs(place / folder)
        specification = json.loads(job)
        assert (specification["batch"], specification["start"], specification["stop"]) == (48, 0, 200)
    letters = data.load("letters", "test").first(200)
    for record, steps in ((by_eval, 20), (by_run, 3)):
        import mixing_model  # type: ignore[import-not-found]

        report = transferbench.evaluate(
            mixing_model.mixing(),
            letters.pixels,
            letters.labels,
            {"Linf": "0.1"},
            attacks=("pgd",),
            n_iter=steps,
            batch_size=48,
            ids=letters.ids,
        )
        assert report.batch == 48
        (chain,) = record["chains"]
        survivors = bin(int(chain["robust"]["hex"], 16)).count("1")
        assert survivors == round(report.robust["Linf"] * 200)
    # Found again: nothing runs a second time, at another batch size it does.
    capsys.readouterr()
    assert main(["run", "mixed.yaml", *common, "run"]) == 0
    assert len(attack_jobs(place / "run")) == 1
    assert main(["run", "mixed.yaml", "--batch-size", "32", "--out", "run"]) == 0
    assert len(attack_jobs(place / "run")) == 2
    assert main(["verify", "run", "--trust-code"]) == 0


def test_the_board_says_so(place: Path) -> None:
    record = record_of(place / "run")
    assert "mixes-rows" in record["flags"]
    assert torch.get_num_threads() >= 1


def test_every_row_of_a_fresh_run_is_one_job(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    assert main(["run", "mixed.yaml", "--batch-size", "48", "--out", "run", "--fresh"]) == 0
    assert len(attack_jobs(place / "run")) == 2

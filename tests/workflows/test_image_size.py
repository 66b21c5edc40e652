"""One image, one size: `train`, `run` and `eval` bring a photograph to a network by the same rule, and say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.records import record, table

from transferbench.cli.main import main
from transferbench.data import View
from transferbench.models import trained

SUITE = """
name: photos
title: a suite for tests
n: 4
threats: {Linf: "8/255"}
protocol:
  description: "tiny"
  chains: {Linf: [{id: apgd-ce, n_iter: 1, restarts: 1}]}
training:
  target_dataset: "folder:photos"
  sources: [{name: public, model: animals-natural}]
  rows: [{name: probe, method: probe, source: public, set: {steps: 1, batch_size: 4}}]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs of several sizes, none of which is the network's."""
    root = tmp_path_factory.mktemp("sizes")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for label in ("cat", "dog"):
            folder = root / "photos" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (60 + number % 2, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (root / "photos.yaml").write_text(SUITE)
    return root


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "records").glob("*.json"))]


def test_train_run_and_eval_attack_the_same_pixels(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    common = ["--data-dir", str(place)]
    words = "train --plugin probe --source animals-natural --target folder:photos"
    words += " --set steps=1 --set batch_size=4 --out own"
    assert main([*words.split(), *common]) == 0
    assert "images: 3x32x32 (Res37Crop32)" in capsys.readouterr().err
    assert main(["run", "photos.yaml", "--dry-run", *common]) == 0
    assert "images of folder:photos: 32x32 (unchanged at that size, others Res37Crop32)" in capsys.readouterr().out
    assert main(["run", "photos.yaml", "--out", "run", "--workers", "1", *common]) == 0
    assert (
        main(["eval", "--model", "own", "--norms", "Linf", "--n", "4", "--allow-low-accuracy", "--out", "e", *common])
        == 0
    )
    assert "8/255 at 3x32x32 (Res37Crop32)" in capsys.readouterr().out
    (by_eval,), by_run = records(place / "e"), next(r for r in records(place / "run") if r["role"] == "victim")
    for name in ("image_shape", "preprocessing", "data_fingerprint"):
        assert by_eval[name] == by_run[name]
    assert by_run["image_shape"] == [3, 32, 32]
    cards = [trained.load(place / "own").card, trained.load(place / "run" / "victims" / "probe-s0").card]
    assert {card.network for card in cards} == {"small-resnet-32"}, "no resizing layer"
    board = (place / "run" / "leaderboard.md").read_text()
    assert "on images of 3x32x32 (Res37Crop32)" in board


def test_another_size_is_asked_for_by_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    words = "train --plugin probe --source animals-natural --target folder:photos --preprocessing Res48Crop40 --out big"
    assert main([*words.split(), "--set", "steps=1", "--set", "batch_size=4", "--data-dir", str(place)]) == 0
    card = trained.load(place / "big").card
    assert (card.input_shape, card.preprocessing) == ((3, 40, 40), "Res48Crop40")
    assert card.network == "resized:40-32:small-resnet-32"


def test_a_preprocessing_is_for_photographs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "train --plugin natural --target digits --preprocessing Res48Crop40 --out none"
    assert main(words.split()) == 2
    assert "no data set of photographs" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "Side32", "Res256Crop224", "Crop288"])
def test_a_view_is_its_text(text: str) -> None:
    assert View.parse(text).text == text


def test_what_a_training_writes_for_its_side_is_the_rule_itself() -> None:
    assert View.of("Res37Crop32", (3, 32, 32)) == View.of("", (3, 32, 32)) == View("", 32)
    assert View.of("Res256Crop224", (3, 32, 32)).text == "Res256Crop224"


@pytest.mark.parametrize(
    "changes", [{"image_shape": (3, 224, 224)}, {"preprocessing": "Res256Crop224"}, {"data_fingerprint": "e" * 32}]
)
def test_other_images_are_never_ranked_together(changes: dict[str, Any]) -> None:
    same = table([record("a-s0", 30), record("b-s0", 5)])
    other = table([record("a-s0", 30), record("b-s0", 5, **changes)])
    assert {row["victim"]: row["rank"] for row in same} == {"a-s0": "1", "b-s0": "2"}
    assert {row["victim"]: row["rank"] for row in other} == {"a-s0": "1", "b-s0": "1"}

"""Few training images as Renofeation's code draws them (`--shot`, seed 98), compared with its own loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import official

from transferbench import suites
from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.data import View, few_shot
from transferbench.data.files import Files
from transferbench.data.listed import ListedImage
from transferbench.jobs.train import TrainJob
from transferbench.scheduling.plan import plan
from transferbench.smoke.trees import MAKERS
from transferbench.training.splits import load_splits
from transferbench.workflows import run_suite

VIEW = View("Res36Crop32")

# The files that CUB200Data, MIT67Data, SDog120Data and Stanford40Data of Renofeation's dataset/ take from the trees of
# smoke/trees.py with shots=k and seed=98.
TAKEN = {
    "cub200": (3, [f"{name}_{number:04d}_796111.jpg" for name, numbers in (
        ("Black_footed_Albatross", (2, 5, 8)), ("Laysan_Albatross", (14, 17, 20)), ("Sooty_Albatross", (26, 29, 32))
    ) for number in numbers]),
    "mit67": (2, ["airport_inside/train_2.jpg", "airport_inside/train_3.jpg", "bar/train_2.jpg", "bar/train_3.jpg",
                  "gameroom/train_2.jpg", "gameroom/train_5.jpg"]),
    "dogs120": (3, [f"n02085620_train{k}.jpg" for k in (10, 2, 6)] + [f"n02085782_train{k}.jpg" for k in (11, 3, 7)]),
    "stanford40": (3, [f"{name}_train_{k:03d}.jpg" for name in ("applauding", "blowing_bubbles", "waving_hands")
                       for k in (1, 3, 5)]),
    # Of two images of each flower its Flower102Data takes the one of `trnid`.
    "flowers102": (1, [f"image_{number:05d}.jpg" for number in range(1, 307, 3)]),
}  # fmt: skip


@pytest.mark.parametrize("id", TAKEN)
def test_the_images_are_those_of_its_loaders(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MAKERS[id](tmp_path)
    official.register(monkeypatch, id, tmp_path)
    k, expected = TAKEN[id]
    train, val = load_splits(id, tmp_path, VIEW, k, validation="none", shots_rule="renofeation")
    assert val is None
    assert isinstance(train.images, Files)
    files = sorted(str(path) for path in train.images.paths)
    assert len(files) == len(expected) == k * len(train.classes)
    for name in expected:
        assert any(file.endswith(f"/{name}") for file in files), name
    assert set(train.class_counts()) == {k}
    keyed = load_splits(id, tmp_path, VIEW, k, validation="none")[0]
    assert set(keyed.ids.tolist()) != set(train.ids.tolist()), "another choice than ours"
    with pytest.raises(InputError, match="99 shots: data set"):
        load_splits(id, tmp_path, VIEW, 99, validation="none", shots_rule="renofeation")


def test_the_order_is_that_of_pythons_shuffle() -> None:
    rows = [ListedImage(str(number), 0) for number in range(30)]
    # ids = numpy.arange(30); random.seed(98); random.shuffle(ids)
    assert [int(row.path) for row in few_shot.shuffled(rows)] == [
        7, 24, 8, 28, 3, 21, 19, 4, 20, 14, 0, 5, 25, 16, 10, 23, 12, 6, 22, 2, 17, 9, 15, 27, 13, 29, 1, 26, 18, 11
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("mit67", "renofeation", None, "none"), "say how many images"),
        (("digits", "renofeation", 3, "none"), "digits is none of"),
        (("mit67", "renofeation", 3, "tenth"), "set validation=none"),
    ],
)
def test_what_the_rule_is_not_defined_for(given: tuple[Any, ...], complaint: str) -> None:
    few_shot.check("digits", "keyed", None, "tenth")
    with pytest.raises(InputError, match=complaint):
        few_shot.check(*given)


def test_a_suites_block_names_the_rule_and_its_jobs_know_it() -> None:
    suite = suites.load("renofeation2020")
    block = suite.training[0].model_copy(update={"shots": 5, "shots_rule": "renofeation"})
    few = suite.model_copy(update={"training": (block,)})
    run_suite.check(few)
    jobs = {job.seed: job for job in plan(few, (0, 1)).jobs if isinstance(job, TrainJob) and job.method == "finetune"}
    assert all(job.specification()["shots rule"] == "renofeation" for job in jobs.values())
    assert jobs[0].splits == jobs[1].splits, "the choice does not depend on the training's seed"
    with pytest.raises(InputError, match="say how many"):
        run_suite.check(suite.model_copy(update={"training": (block.model_copy(update={"shots": None}),)}))


def test_train_refuses_the_rule_early_and_writes_it_on_the_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--plugin", "natural", "--network", "preact-resnet18", "--target", "mit67", "--shots", "2"]
    words += ["--shots-rule", "renofeation", "--out", str(tmp_path / "v"), "--data-dir", str(tmp_path)]
    assert main(words) == 2
    assert "set validation=none" in capsys.readouterr().err
    assert not (tmp_path / "v").exists()
    MAKERS["mit67"](tmp_path)
    words += ["--set", "validation=none", "--set", "steps=1", "--set", "batch_size=4", "--preprocessing", "Res36Crop32"]
    assert main(words) == 0
    text = (tmp_path / "v" / "README.md").read_text()
    assert "shots_rule: renofeation" in text
    assert "shots: 2" in text


def test_the_data_sets_of_its_code_have_the_rule() -> None:
    having = {id for id in registry.entries("data") if hasattr(registry.find("data", id).load(), "renofeation_shots")}
    assert having == set(TAKEN)

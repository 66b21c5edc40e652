"""Batches: a function of their number, in whichever process they are decoded."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from support.trainings import StoppedError, StopsAfter, same, settings, state_of

from transferbench import data, methods
from transferbench.data import Dataset, View
from transferbench.methods import Batch, Network
from transferbench.models import networks
from transferbench.smoke import trees
from transferbench.training import loop
from transferbench.training.batches import Loader


@pytest.fixture
def photographs(tmp_path: Path) -> tuple[Dataset, Dataset]:
    """Image files that are decoded, cropped and flipped anew in every epoch."""
    trees.mit67(tmp_path)
    view = View("Res40Crop32")
    return data.load("mit67", "train", tmp_path, view), data.load("mit67", "val", tmp_path, view)


def equal(first: Batch, second: Batch) -> bool:
    return first.step == second.step and all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


@pytest.mark.slow
def test_workers_change_no_batch(photographs: tuple[Dataset, Dataset]) -> None:
    params: Any = methods.build("finetune", {"batch_size": 4, "seed": 1}).params
    alone = list(itertools.islice(Loader(photographs[0], params).from_step(0), 9))
    assert not torch.equal(alone[0].x, alone[3].x)
    helped = Loader(photographs[0], params, workers=2)
    assert all(map(equal, alone, itertools.islice(helped.from_step(0), 9)))
    helped = Loader(photographs[0], params, workers=1)
    replayed = list(itertools.islice(helped.from_step(4, replays=3), 4))
    assert [batch.step for batch in replayed] == [4, 5, 6, 7]
    assert [torch.equal(batch.x, alone[number].x) for batch, number in zip(replayed, (1, 1, 2, 2), strict=True)] == [
        True
    ] * 4
    assert [batch.step for batch in helped.epoch(1)] == list(range(helped.per_epoch, 2 * helped.per_epoch))


@pytest.mark.slow
def test_a_training_with_workers_is_killed_and_resumed_to_the_same_bits(
    photographs: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    """Decoded ahead or not, interrupted or not, and also where the end goes through an epoch: one seed, one result."""
    id = "renofeation"
    given = {**settings(id), "batch_size": 4}

    def go(workers: int, checkpoint: Any) -> loop.Trained:
        source = Network(*networks.build("aa-resnet18", 10)[:2])
        fresh = lambda: Network(*networks.build("aa-resnet18", 3)[:2])  # noqa: E731
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for parameter in source.model.parameters():
                torch.nn.init.normal_(parameter, std=0.05)
        options = loop.FitOptions(checkpoint=checkpoint, loader_workers=workers)
        return loop.fit(methods.build(id, given), source, fresh, *photographs, options)

    plain = go(0, loop.NO_CHECKPOINT)
    stopped = tmp_path / "c"
    with pytest.raises(StoppedError):
        go(1, StopsAfter(stopped, 4))
    resumed = go(1, StopsAfter(stopped, 1000))
    assert same(state_of(plain.network), state_of(resumed.network))
    assert resumed.log == plain.log

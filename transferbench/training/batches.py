"""Batches of a training: a pure function of their number, so that it does not matter who decodes them, or when.

The order of an epoch is a permutation keyed by (seed, epoch); augmentation and noise are keyed by (seed, step, example
id). Worker processes only decode ahead: with any number of them a training gives the same bits, and is resumed alike.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Generator, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Items

from transferbench.base import keyed_random
from transferbench.data import Augment, Dataset
from transferbench.methods import BaseParams, Batch


class Loader:
    """The training images in batches, on a device. `workers` processes decode ahead; 0 decodes in this one.

    The last images of an epoch that fill no batch are left out.
    """

    def __init__(
        self, train: Dataset, params: BaseParams, device: torch.device | str = "cpu", workers: int = 0
    ) -> None:
        self.device, self.workers = device, workers
        self.per_epoch = len(train) // params.batch_size
        self._items = _Batches(train, params.batch_size, params.seed, params.augment)

    def from_step(self, start: int, replays: int = 1) -> Generator[Batch]:
        """A batch for every global step from `start` on, for ever; each is given for `replays` steps in a row."""
        first, taken = divmod(start, replays)
        for batch in self._loaded(itertools.count(first)):
            for step in range(batch.step * replays + taken, (batch.step + 1) * replays):
                yield batch._replace(step=step)
            taken = 0

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        """The batches of one epoch; `step` counts batches over all epochs."""
        return self._loaded(range(number * self.per_epoch, (number + 1) * self.per_epoch))

    def _loaded(self, numbers: Any) -> Iterator[Batch]:
        loaded: Any = (self._items[number] for number in numbers)
        if self.workers:
            loaded = DataLoader(
                self._items,
                batch_size=None,
                sampler=numbers,
                num_workers=self.workers,
                collate_fn=_as_it_is,
                worker_init_fn=_leave_interrupts_to_the_parent,
                # Its own, so that beginning an epoch takes nothing from the generator that draws dropout.
                generator=torch.Generator(),
                # A forked worker would keep the run's lock for a while after the driver was killed.
                multiprocessing_context="spawn",
            )
        for batch in loaded:
            x, y, noise = (part.to(self.device) for part in (batch.x, batch.y, batch.noise))
            yield Batch(x, y, noise, batch.step)


class _Batches(Items[Batch]):
    """By number over all epochs."""

    def __init__(self, train: Dataset, batch_size: int, seed: int, augment: Augment | str) -> None:
        self.train, self.batch_size, self.seed = train, batch_size, seed
        self.augment: Any = train.augment if augment == "auto" else augment

    def __getitem__(self, number: int) -> Batch:
        epoch, place = divmod(number, len(self.train) // self.batch_size)
        order = _order(self.seed, epoch, len(self.train))
        at = order[place * self.batch_size : (place + 1) * self.batch_size]
        noise = keyed_random.row_keys(keyed_random.stream("noise", self.seed, number), self.train.ids[at])
        drawn = keyed_random.row_keys(keyed_random.stream("augment", self.seed, number), self.train.ids[at])
        return Batch(self.train.drawn(at, drawn, self.augment), self.train.labels[at], noise, number)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> Tensor:
    return keyed_random.permutation(keyed_random.stream("order", seed, epoch), n)


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_interrupts_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

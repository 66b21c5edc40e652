"""The batches of a training as a pure function of their number.

The order of an epoch is a permutation keyed by (seed, epoch); augmentation and noise are keyed by (seed, step, example
id). Worker processes only decode in advance: results do not depend on their number, and a training can be resumed.
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
    """Batches of the training images on a device, decoded in advance by `workers` processes (0: in this process).

    The last images of an epoch that do not fill a batch are omitted, or with `partial_batches` are a smaller batch; a
    single one is always omitted.
    """

    def __init__(
        self, train: Dataset, params: BaseParams, device: torch.device | str = "cpu", workers: int = 0
    ) -> None:
        self.device, self.workers = device, workers
        self._items = _Batches(train, params)
        self.per_epoch = self._items.per_epoch

    def from_step(self, start: int, replays: int = 1) -> Generator[Batch]:
        """The batches of the steps from `start` on, without end; each batch is used for `replays` consecutive steps."""
        first, skipped = divmod(start, replays)
        for batch in self._load(itertools.count(first)):
            for step in range(batch.step * replays + skipped, (batch.step + 1) * replays):
                yield batch._replace(step=step)
            skipped = 0

    def epoch(self, number: int = 0, /) -> Iterator[Batch]:
        """The batches of one epoch; `step` is the number of the batch over all epochs."""
        return self._load(range(number * self.per_epoch, (number + 1) * self.per_epoch))

    def _load(self, numbers: Any) -> Iterator[Batch]:
        """The batches of these numbers, moved to the device."""
        batches: Any = (self._items[number] for number in numbers)
        if self.workers:
            batches = DataLoader(
                self._items,
                batch_size=None,
                sampler=numbers,
                num_workers=self.workers,
                collate_fn=_identity,
                worker_init_fn=_ignore_interrupts,
                # A generator of its own, so that starting an epoch does not change the global one, which draws dropout.
                generator=torch.Generator(),
                # A forked worker would hold the run's lock for a while after the driver was killed.
                multiprocessing_context="spawn",
            )
        for batch in batches:
            x, y, noise = (part.to(self.device) for part in (batch.x, batch.y, batch.noise))
            yield Batch(x, y, noise, batch.step)


class _Batches(Items[Batch]):
    """The batch of each number over all epochs, as a dataset of torch."""

    def __init__(self, train: Dataset, params: BaseParams) -> None:
        self.train, self.batch_size, self.seed = train, params.batch_size, params.seed
        self.per_epoch, rest = divmod(len(train), params.batch_size)
        self.per_epoch += params.partial_batches and rest > 1
        self.augment: Augment = train.augment if params.augment == "auto" else params.augment
        self.padding = None if params.crop_padding == "auto" else params.crop_padding

    def __getitem__(self, number: int) -> Batch:
        epoch, index = divmod(number, self.per_epoch)
        order = _order(self.seed, epoch, len(self.train))
        at = order[index * self.batch_size : (index + 1) * self.batch_size]
        noise = keyed_random.row_keys(keyed_random.stream("noise", self.seed, number), self.train.ids[at])
        keys = keyed_random.row_keys(keyed_random.stream("augment", self.seed, number), self.train.ids[at])
        x = self.train.augmented(at, keys, self.augment, self.padding)
        return Batch(x, self.train.labels[at], noise, number)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> Tensor:
    return keyed_random.permutation(keyed_random.stream("order", seed, epoch), n)


def _identity(batch: Any) -> Any:
    return batch


def _ignore_interrupts(_: int) -> None:
    """Ctrl-C is handled by the parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

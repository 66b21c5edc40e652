"""Images on their way to a device: on a GPU they are decoded and pinned by a thread while those before are worked on.

On a CPU nothing is decoded ahead: a thread that decodes would take the core of the attack.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch

from transferbench.data import Dataset


def pinned(dataset: Dataset) -> Dataset:
    """All examples decoded, in memory that a GPU copies from without waiting."""
    images, labels, ids = (tensor.pin_memory() for tensor in (dataset.pixels, dataset.labels, dataset.ids))
    return replace(dataset, images=images, labels=labels, ids=ids)


class Ahead:
    """Decodes one data set ahead of the one that is worked on."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._thread = ThreadPoolExecutor(1) if torch.device(device).type == "cuda" else None
        self._begun: tuple[object, Future[Dataset]] | None = None

    @property
    def is_ahead(self) -> bool:
        """Whether anything is decoded ahead: on a GPU."""
        return self._thread is not None

    def begin(self, name: object, dataset: Dataset) -> None:
        """Decode a data set in the thread; `name` is what `taken` asks for. It replaces the one begun before."""
        if self._thread is not None and (self._begun is None or self._begun[0] != name):
            self._begun = (name, self._thread.submit(pinned, dataset))

    def taken(self, name: object, dataset: Dataset) -> Dataset:
        """The data set on the device, from the thread where it was begun under this name.

        InputError for an image that is not readable.
        """
        if self._thread is None:
            return dataset.on(self.device)
        if self._begun is None or self._begun[0] != name:
            return pinned(dataset).on(self.device)
        begun, self._begun = self._begun[1], None
        return begun.result().on(self.device)

    def parts(self, dataset: Dataset, size: int) -> Iterator[Dataset]:
        """Consecutive parts of at most `size` examples on the device, the next one decoded ahead."""
        batches = dataset.batches(size)
        name, following = object(), next(batches, None)
        while following is not None:
            current, following = following, next(batches, None)
            ready = self.taken(name, current)
            name = object()
            if following is not None:
                self.begin(name, following)
            yield ready

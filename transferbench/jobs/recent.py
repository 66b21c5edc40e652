"""A cache of networks that is bounded by memory: a run's victims in turn stay prepared where they are small."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from torch import nn

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_BYTES = 2**30
"""Of the parameters of what one cache holds."""
FEWEST = 4
"""So many stay whatever their size: a source and a few victims in turn."""


class RecentlyUsed(Generic[K, V]):
    """Values by key with the bytes of their parameters; where they are more than `most_bytes`, those that were used
    longest ago go, except the last FEWEST."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: K) -> V:
        """The value, which counts as used. KeyError where there is none."""
        self._values.move_to_end(key)
        return self._values[key][0]

    def add(self, key: K, value: V, size: int) -> None:
        """Keep a value of so many bytes."""
        self._values[key] = (value, size)
        self._values.move_to_end(key)
        while len(self._values) > FEWEST and sum(size for _, size in self._values.values()) > self.most_bytes:
            self._values.popitem(last=False)


def size_of(model: nn.Module) -> int:
    """The bytes of a model's parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

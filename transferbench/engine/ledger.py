"""The ledger: for every example its open tries, the try that decides, and the passes of each try.

The tries of an example are ranked. The lowest-ranked try that fools the network decides; it cancels only higher ranks.
So neither the verdict nor the passes up to it depend on the number of rows in flight. Only the passes of cancelled
tries do, and they are counted separately as wasted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from transferbench.base.errors import FaultError

PATIENCE = 25
"""Passes after which an example's next try may start early, in slots that would be empty. Most examples that can be
fooled are fooled in fewer passes (their next tries would be wasted)."""


@dataclass(frozen=True)
class Spent:
    """Passes per rank, int64 [ranks] each: up to the deciding tries; `wasted`: the backwards of cancelled tries."""

    forwards: NDArray[np.int64]
    backwards: NDArray[np.int64]
    wasted: NDArray[np.int64]


class Ledger:
    """The tries of a number of examples; `backward[rank]`: whether the try of that rank needs backward passes.

    `decided` holds the rank of the deciding try so far (the number of ranks without one), `started` the number of tries
    started, `open` the ranks in flight, `settled` the number of examples with a final verdict.
    """

    def __init__(self, examples: int, backward: Sequence[bool], patience: int = PATIENCE) -> None:
        self.ranks, self.patience = len(backward), patience
        self.backward = np.asarray(backward, dtype=np.int64)
        self.passes = np.zeros((examples, self.ranks), dtype=np.int64)
        self.decided = np.full(examples, self.ranks, dtype=np.int64)
        self.started = np.zeros(examples, dtype=np.int64)
        self.open: list[set[int]] = [set() for _ in range(examples)]
        self.waiting: deque[int] = deque(range(examples))
        self.settled = 0

    @property
    def finished(self) -> bool:
        """Whether every example has its final verdict."""
        return self.settled == len(self.open)

    @property
    def fooled(self) -> int:
        """The number of examples fooled so far (a lower rank may still become the deciding try)."""
        return int((self.decided < self.ranks).sum())

    def take(self, slots: int) -> list[tuple[int, int]]:
        """Start the next tries of examples without an open try: up to `slots` pairs (example, rank)."""
        pairs: list[tuple[int, int]] = []
        while self.waiting and len(pairs) < slots:
            pairs.append(self._start(self.waiting.popleft()))
        return pairs

    def take_early(self, slots: int) -> list[tuple[int, int]]:
        """Start up to `slots` further tries of examples whose open tries all have PATIENCE passes or more.

        Examples with fewer started tries come first.
        """
        if slots <= 0:
            return []
        ready = [
            example
            for example, ranks in enumerate(self.open)
            if ranks
            and self.started[example] < self.decided[example]
            and min(self.passes[example, rank] for rank in ranks) >= self.patience
        ]
        ready.sort(key=lambda example: (int(self.started[example]), example))
        return [self._start(example) for example in ready[:slots]]

    def _start(self, example: int) -> tuple[int, int]:
        rank = int(self.started[example])
        self.started[example] += 1
        self.open[example].add(rank)
        return example, rank

    def charge(self, examples: NDArray[np.int64], ranks: NDArray[np.int64], passes: NDArray[np.int64]) -> None:
        """Set the passes of these distinct tries so far. To be called when a try ends, and before `take_early`."""
        self.passes[examples, ranks] = passes

    def cancelled(self, examples: NDArray[np.int64], ranks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool: the tries whose rank is above the deciding one."""
        return ranks > self.decided[examples]

    def hit(self, example: int, rank: int) -> bool:
        """Record that the judge confirmed a try as fooling: it decides so far, and higher-ranked open tries are closed.

        False, and nothing changes, when a lower rank closed the try in the same iteration.
        """
        if rank not in self.open[example]:
            return False
        self.decided[example] = rank
        self.open[example] = {other for other in self.open[example] if other < rank}
        self._settle(example)
        return True

    def failed(self, example: int, rank: int) -> None:
        """Record that a try ended without fooling the network."""
        if rank in self.open[example]:
            self.open[example].remove(rank)
            self._settle(example)

    def _settle(self, example: int) -> None:
        """Queue the example's next try, or count it as settled, when it has no open try."""
        if self.open[example]:
            return
        if self.started[example] < self.decided[example]:
            self.waiting.append(example)
        else:
            self.settled += 1

    def snapshot(self) -> dict[str, Any]:
        """The state for `restore`: numbers, lists and tensors."""
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ("passes", "decided", "started")}
        return {
            **arrays,
            "open": [sorted(ranks) for ranks in self.open],
            "waiting": list(self.waiting),
            "settled": self.settled,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from a snapshot. FaultError when its shape is not that of these examples and tries."""
        if tuple(saved["passes"].shape) != self.passes.shape:
            raise FaultError(f"a checkpoint of {tuple(saved['passes'].shape)} tries does not fit {self.passes.shape}")
        self.passes, self.decided, self.started = (saved[name].numpy() for name in ("passes", "decided", "started"))
        self.open = [set(ranks) for ranks in saved["open"]]
        self.waiting, self.settled = deque(saved["waiting"]), saved["settled"]

    def spent(self) -> Spent:
        """The passes of the tries up to the deciding ones, and of the cancelled tries."""
        decisive = np.arange(self.ranks)[None, :] <= self.decided[:, None]
        forwards = np.where(decisive, self.passes, 0).sum(0)
        wasted = np.where(decisive, 0, self.passes).sum(0)
        return Spent(forwards, forwards * self.backward, wasted * self.backward)

"""Which tries of an example are open, which one decides, and what each has cost. No tensors of images here.

The tries of an example are ranked. The lowest-ranked try that fools decides it; a hit cancels only higher
ranks. So the verdict and the passes that led to it do not depend on how many rows fit into the pool; only the
passes spent on tries that a lower rank made useless do, and those are counted apart as wasted.
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
"""An example's next try starts early, in slots that would be empty, once the current one has lived this long:
breakable examples fall after a few passes (their next tries would be waste), the others rarely fall later."""


@dataclass(frozen=True)
class Spent:
    """Passes by what they were for, per rank: int64 [ranks] each."""

    forwards: NDArray[np.int64]
    backwards: NDArray[np.int64]
    wasted: NDArray[np.int64]


class Ledger:
    """The tries of `examples` examples with `ranks` ranks each; `backward[rank]`: whether its passes need one."""

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
        return self.settled == len(self.open)

    @property
    def fooled(self) -> int:
        """How many examples have fallen so far (a lower rank may still take over the attribution)."""
        return int((self.decided < self.ranks).sum())

    def take(self, room: int) -> list[tuple[int, int]]:
        """Up to `room` (example, rank) pairs to start: the next try of examples that have none in flight."""
        taken: list[tuple[int, int]] = []
        while self.waiting and len(taken) < room:
            taken.append(self._start(self.waiting.popleft()))
        return taken

    def take_early(self, room: int) -> list[tuple[int, int]]:
        """Up to `room` tries of examples whose open tries have all outlived PATIENCE, shortest queue first."""
        if room <= 0:
            return []
        able = [
            example
            for example, ranks in enumerate(self.open)
            if ranks
            and self.started[example] < self.decided[example]
            and min(self.passes[example, rank] for rank in ranks) >= self.patience
        ]
        able.sort(key=lambda example: (int(self.started[example]), example))
        return [self._start(example) for example in able[:room]]

    def _start(self, example: int) -> tuple[int, int]:
        rank = int(self.started[example])
        self.started[example] += 1
        self.open[example].add(rank)
        return example, rank

    def charge(self, examples: NDArray[np.int64], ranks: NDArray[np.int64], passes: NDArray[np.int64]) -> None:
        """So many passes these distinct tries have made so far. Due when a try ends, and before `take_early`."""
        self.passes[examples, ranks] = passes

    def cancelled(self, examples: NDArray[np.int64], ranks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these tries a lower-ranked hit has made useless."""
        return ranks > self.decided[examples]

    def hit(self, example: int, rank: int) -> bool:
        """A judged hit; whether it decides so far. Higher-ranked open tries are closed.

        A try that a lower rank closed in this very iteration no longer counts: False, and nothing changes.
        """
        if rank not in self.open[example]:
            return False
        self.decided[example] = rank
        self.open[example] = {other for other in self.open[example] if other < rank}
        self._settle(example)
        return True

    def failed(self, example: int, rank: int) -> None:
        """A try ran to its end and fooled nobody."""
        if rank in self.open[example]:
            self.open[example].remove(rank)
            self._settle(example)

    def _settle(self, example: int) -> None:
        if self.open[example]:
            return
        if self.started[example] < self.decided[example]:
            self.waiting.append(example)
        else:
            self.settled += 1

    def snapshot(self) -> dict[str, Any]:
        """Plain numbers and arrays as tensors: what `restore` takes."""
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ("passes", "decided", "started")}
        return {
            **arrays,
            "open": [sorted(ranks) for ranks in self.open],
            "waiting": list(self.waiting),
            "settled": self.settled,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """FaultError where the snapshot is of other examples or tries."""
        if tuple(saved["passes"].shape) != self.passes.shape:
            raise FaultError(f"a checkpoint of {tuple(saved['passes'].shape)} tries does not fit {self.passes.shape}")
        self.passes, self.decided, self.started = (saved[name].numpy() for name in ("passes", "decided", "started"))
        self.open = [set(ranks) for ranks in saved["open"]]
        self.waiting, self.settled = deque(saved["waiting"]), saved["settled"]

    def spent(self) -> Spent:
        """The passes of tries up to the deciding one, and those of the cancelled rest."""
        counted = np.arange(self.ranks)[None, :] <= self.decided[:, None]
        decisive = np.where(counted, self.passes, 0).sum(0)
        wasted = np.where(counted, 0, self.passes).sum(0)
        return Spent(decisive, decisive * self.backward, wasted * self.backward)

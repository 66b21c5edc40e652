"""Crafted sets: what an attacker who holds only the source makes of a shard, try after try, some rows at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from transferbench.attacks import RowAttack, State, lockstep
from transferbench.base.checkpoint import Checkpoint
from transferbench.base.specifications import ThreatModel
from transferbench.data import Dataset
from transferbench.engine.judge import at_least
from transferbench.engine.memory import Rows
from transferbench.engine.pool import OnProgress
from transferbench.models.features import Penultimate


class Crafting:
    """All tries of a `sees = "source"` attack on a shard. How many rows share a pass changes no point."""

    def __init__(
        self,
        source: Penultimate,
        attack: RowAttack,
        threat: ThreatModel,
        shard: Dataset,
        seed: int,
        rows: Rows,
        checkpoint: Checkpoint,
    ) -> None:
        self.source, self.attack, self.threat, self.shard, self.seed = source, attack, threat, shard, seed
        self.rows, self.checkpoint = rows, checkpoint
        saved = checkpoint.load() or {"done": [], "begun": None}
        self.done: list[Tensor] = saved["done"]
        self.begun: dict[str, Any] | None = saved["begun"]

    def run(self, on_progress: OnProgress | None = None) -> Tensor:
        """Points [tries, n, ...] on the CPU."""
        n = len(self.shard)
        while (finished := sum(map(len, self.done))) < self.attack.tries * n:
            self.done.append(self.rows.within_memory(lambda most: self._part(*divmod(finished, n), most)))
            self.begun = None
            if on_progress is not None:
                on_progress(sum(map(len, self.done)) // self.attack.tries, n)
        return torch.cat(self.done).view(self.attack.tries, n, *self.shard.shape)

    def _part(self, attempt: int, first: int, most: int) -> Tensor:
        """The end points of a try on the next `most` images from `first` on, [rows, ...]."""
        device, state = self.shard.pixels.device, None
        if self.begun is not None and self.begun["rows"] <= max(most, self.rows.floor):
            most = self.begun["rows"]
            state = self.begun["step"], {name: part.to(device) for name, part in self.begun["state"].items()}
        rows = slice(first, min(first + most, len(self.shard)))
        # No fewer rows than the floor: see engine/judge.py.
        x, y, ids = (
            at_least(part[rows], self.rows.floor) for part in (self.shard.pixels, self.shard.labels, self.shard.ids)
        )
        noise = lockstep.try_keys(self.seed, self.threat.norm, self.threat.eps.text, attempt, ids)

        def keep(step: int, state: State) -> None:
            self.checkpoint.offer(lambda: {"done": self.done, "begun": {"step": step, "rows": most, "state": state}})

        plain = self.attack.sees == "source"
        network = self.source.model if plain else self.source
        clean = lockstep.logits(network, x) if plain and state is None else None
        points = lockstep.end_point(self.attack, network, x, y, noise, attempt, clean, state, keep)
        return points[: rows.stop - rows.start].cpu()

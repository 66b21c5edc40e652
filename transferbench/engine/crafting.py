"""Crafts adversarial examples with the source alone, try after try, a batch of rows at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from transferbench.attacks import Keys, RowState, lockstep
from transferbench.attacks.source_attack import SourceAttack, run_to_end
from transferbench.base.checkpoint import Checkpoint
from transferbench.base.specifications import ThreatModel
from transferbench.data import Dataset
from transferbench.engine.judge import at_least
from transferbench.engine.memory import Rows
from transferbench.engine.source_model import SourceModel
from transferbench.engine.verdicts import OnSettled


class Crafting:
    """All tries of a source-only attack on a shard. The points do not depend on the batch size.

    `done` are the end points of finished batches, `unfinished` the state of the batch in progress, both checkpointed.
    """

    def __init__(
        self,
        source: SourceModel,
        attack: SourceAttack,
        threat: ThreatModel,
        shard: Dataset,
        seed: int,
        rows: Rows,
        checkpoint: Checkpoint,
    ) -> None:
        self.source, self.attack, self.threat, self.shard, self.seed = source, attack, threat, shard, seed
        self.rows, self.checkpoint = rows, checkpoint
        saved = checkpoint.load() or {"done": [], "unfinished": None}
        self.done: list[Tensor] = saved["done"]
        self.unfinished: dict[str, Any] | None = saved["unfinished"]

    def run(self, on_progress: OnSettled | None = None) -> Tensor:
        """Points [tries, n, ...] on the CPU. `on_progress` is called with (examples done, n)."""
        n = len(self.shard)
        while (finished := sum(map(len, self.done))) < self.attack.tries * n:
            self.done.append(self.rows.within_memory(lambda most: self._part(*divmod(finished, n), most)))
            self.unfinished = None
            if on_progress is not None:
                on_progress(sum(map(len, self.done)) // self.attack.tries, n)
        return torch.cat(self.done).view(self.attack.tries, n, *self.shard.shape)

    def _part(self, attempt: int, first: int, most: int) -> Tensor:
        """[rows, ...]: the end points of a try on at most `most` images from position `first` on."""
        device, saved = self.shard.pixels.device, self.unfinished
        resumes = saved is not None and saved["rows"] <= max(most, self.rows.floor)
        if saved is not None and resumes:
            most = saved["rows"]
        rows = slice(first, min(first + most, len(self.shard)))
        # Padded to the floor (engine/judge.py), so that the points do not depend on the batch size.
        x, ids = (at_least(part[rows], self.rows.floor) for part in (self.shard.pixels, self.shard.ids))
        if saved is not None and resumes:
            step, state = saved["step"], {name: part.to(device) for name, part in saved["state"].items()}
        else:
            noise = lockstep.try_keys(self.seed, self.threat.norm, self.threat.eps.text, attempt, ids)
            keys = Keys(noise, torch.full_like(ids, attempt))
            step, state = 0, self.attack.start(x, self.source, keys)

        def save(step: int, state: RowState) -> None:
            unfinished = {"step": step, "rows": most, "state": state}
            self.checkpoint.offer(lambda: {"done": self.done, "unfinished": unfinished})

        points = run_to_end(self.attack, self.source, state, step, save)
        return points[: rows.stop - rows.start].cpu()

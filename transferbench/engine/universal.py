"""Makes universal deltas with the source alone, step by step on batches of the attacker's images; resumable inside."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from transferbench.attacks import RowState
from transferbench.attacks.source_attack import SourceNetwork
from transferbench.attacks.universal_attack import UniversalAttack, gaussian_images
from transferbench.base import keyed_random
from transferbench.base.checkpoint import Checkpoint
from transferbench.base.errors import FaultError
from transferbench.engine.verdicts import OnSettled

POOL = 512
"""The attacker's images: at most so many, drawn by the seed and decoded once."""


class UniversalCrafting:
    """All deltas of an attack for images of shape [C, H, W].

    `pool` [n, C, H, W] are the attacker's images; an attack on Gaussian images, or without any, needs none. Batches are
    drawn from it with replacement, by the seed, the radius and the number of the delta and of the step.
    """

    def __init__(
        self,
        source: SourceNetwork,
        attack: UniversalAttack,
        shape: tuple[int, ...],
        pool: Tensor | None,
        name: tuple[object, ...],
        device: str,
        checkpoint: Checkpoint,
    ) -> None:
        """`name` are the dimensions that key the draws: the seed, the norm and the radius."""
        self.source, self.attack, self.shape, self.pool = source, attack, shape, pool
        self.name, self.device, self.checkpoint = name, device, checkpoint
        saved = checkpoint.load() or {"done": [], "state": None}
        self.done: list[Tensor] = saved["done"]
        self.state: dict[str, Any] | None = saved["state"]

    def run(self, on_progress: OnSettled | None = None) -> Tensor:
        """Deltas [tries, C, H, W] on the CPU. `on_progress` is called with (steps done, steps)."""
        attack = self.attack
        while len(self.done) < attack.tries:
            state = self.state or attack.start(self.shape, keyed_random.stream("delta", *self.name, len(self.done)))
            state = {name: part.to(self.device) for name, part in state.items()}
            for step in range(int(state["step"]), attack.steps):
                state["delta"] = attack.step(state, self._gradient(state))
                self.checkpoint.offer(partial(dict, done=self.done, state=state))
                if on_progress is not None:
                    on_progress(len(self.done) * attack.steps + step + 1, attack.tries * attack.steps)
            self.done.append(state["delta"][0].cpu())
            self.state = None
        return torch.stack(self.done)

    def _gradient(self, state: RowState) -> Tensor:
        images = self._batch(state)
        with torch.enable_grad():
            delta = state["delta"].detach().requires_grad_(True)
            loss = self.attack.loss(delta, images, self.source, state)
            gradient = torch.autograd.grad(loss, delta)[0]
        if not (bool(torch.isfinite(loss)) and bool(torch.isfinite(gradient).all())):
            raise FaultError(
                f"attack {self.attack.id}: its loss or gradient is not finite at step {int(state['step'])}"
            )
        return gradient.contiguous()

    def _batch(self, state: RowState) -> Tensor:
        """[batch, C, H, W]: the images of this step."""
        count = self.attack.batch
        if self.attack.images == "gaussian":
            return gaussian_images(state, count, self.shape).clamp(0, 1)
        if self.attack.images == "none":
            return state["delta"].new_zeros(0, *self.shape)
        assert self.pool is not None
        key = keyed_random.row_keys(keyed_random.stream("universal batch"), state["key"].cpu(), state["step"].cpu())
        at = (keyed_random.uniform(key, (count,))[0] * len(self.pool)).long()
        return self.pool[at].to(self.device)

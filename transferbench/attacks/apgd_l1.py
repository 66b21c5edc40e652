"""Auto-PGD's recurrence in L1 (Croce and Hein 2021, arXiv:2103.01208): sparse steps, shrinking radii.

Each radius is a phase of its own that starts from the previous phase's best point, projected; only points of
the last phase lie in the threat's ball. The sparsity is the number of entries where x_best - x is not 0 in
float32, rounding residues included: the recurrence depends on them, so the order of operations
(x + delta + correction, the start projected twice) is the reference implementation's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from transferbench.attacks import Keys, RowState
from transferbench.attacks.apgd_base import APGD, Objective, replace_rows_
from transferbench.threats import L1Ball, LpBall
from transferbench.threats.projections import l1_correction, per_row


class RadiusPhase(NamedTuple):
    """One radius and its number of iterations, in addition to the evaluation of its start."""

    eps: float
    n_iter: int


def three_radii(eps: float, n_iter: int) -> list[RadiusPhase]:
    """3 eps, 2 eps, eps for .3, .3 and the rest of the iterations: 30, 30, 40 of 100.

    With fewer than 4 iterations the last radius has only the evaluation of its start.
    """
    third = math.ceil(0.3 * n_iter)
    return [
        RadiusPhase(3.0 * eps, third),
        RadiusPhase(2.0 * eps, third),
        RadiusPhase(eps, max(n_iter - 2 * third, 0)),
    ]


def single_radius(eps: float, n_iter: int) -> list[RadiusPhase]:
    """All iterations at eps."""
    return [RadiusPhase(eps, n_iter)]


def keyed_draw(ball: LpBall, x: Tensor, keys: Keys) -> Tensor:
    """[B, ...]: the noise of the start, drawn by key."""
    return ball.noise(keys.noise, tuple(x.shape[1:]))


class L1APGD(APGD):
    """Auto-PGD in L1. `ball` is the threat; the radius of the last phase is the ball's.

    `state["i"]` is the number of finished evaluations over all phases. A single phase starts as the reference does
    without larger radii: from the projected noise (or the clean image), with a sparsity of `topk`.
    """

    def __init__(
        self,
        id: str,
        objective: Objective,
        tries: int,
        ball: L1Ball,
        phases: list[RadiusPhase],
        random_start: bool = True,
        topk: float = 0.2,
    ) -> None:
        super().__init__(id, objective, tries, ball)
        self.phases, self.random_start, self.topk = phases, random_start, topk
        # Replay replaces both by the reference's, whose projection differs in the last bits.
        self.draw: Callable[[LpBall, Tensor, Keys], Tensor] = keyed_draw
        self.correction: Callable[[Tensor, Tensor, float | Tensor], Tensor] = l1_correction
        self.passes = sum(phase.n_iter + 1 for phase in phases)
        phase_of, last, due = [], [], []
        for number, phase in enumerate(phases):
            every = max(int(0.04 * phase.n_iter), 1)
            for local in range(phase.n_iter + 1):
                phase_of.append(number)
                last.append(local == phase.n_iter)
                due.append(local > 0 and local % every == 0)
        self.tables: dict[str, Tensor] = {
            "phase": torch.tensor([*phase_of, len(phases) - 1]),
            "begins": torch.tensor([True, *last]),
            "due": torch.tensor([*due, False]),
            # Python floats rounded once to float32, as the reference's scalars.
            "eps": torch.tensor([phase.eps for phase in phases]),
            "eps_min": torch.tensor([phase.eps / 10.0 for phase in phases]),
        }

    def start(self, x: Tensor, y: Tensor, clean_logits: Tensor, keys: Keys) -> RowState:
        radius = self.phases[0].eps
        point = x.clone()
        if self.random_start:
            noise = self.draw(self.ball, x, keys)
            if len(self.phases) > 1:
                point = x + noise
                for _ in range(2):
                    point = point + self.correction(x, point - x, radius)
            else:
                point = x + noise + self.correction(x, noise, radius)
        point = point.clamp(0, 1)
        flat = torch.zeros(len(x), device=x.device)
        state = {
            "x": point,
            "clean": x,
            "target": self.targets(clean_logits, keys),
            "x_best": point.clone(),
            "grad_best": torch.zeros_like(x),
            "loss_best": flat.clone(),
            "step": flat + radius,
            "topk": flat + self.topk,
            "entries": flat + x[0].numel(),
            "moved": torch.zeros_like(y, dtype=torch.bool),
            "i": torch.zeros_like(y),
        }
        if len(self.phases) > 1:
            self._measure(state, point, torch.ones_like(y, dtype=torch.bool))
        return state

    def _measure(self, state: RowState, point: Tensor, rows: Tensor) -> None:
        """Set the sparsity of `rows` bool [B] from their points: the number of changed entries, and topk, their share
        divided by 1.5."""
        indices = rows.nonzero().flatten()
        if len(indices) == 0:
            return
        change = point.index_select(0, indices).sub_(state["clean"].index_select(0, indices))
        entries = change.ne_(0).flatten(1).sum(1)
        state["entries"] = state["entries"].index_copy(0, indices, entries)
        state["topk"] = state["topk"].index_copy(0, indices, entries / point[0].numel() / 1.5)

    def step(self, state: RowState, output: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        self.tables = {name: table.to(loss.device) for name, table in self.tables.items()}
        tables, x, i = self.tables, state["x"], state["i"]
        phase = tables["phase"][i]
        better = tables["begins"][i] | (loss > state["loss_best"])
        state["moved"] |= better
        replace_rows_(better, (state["x_best"], x), (state["grad_best"], gradient))
        state["loss_best"] = torch.where(better, loss, state["loss_best"])
        x, gradient = self._checkpoint(state, x, gradient, tables["due"][i], tables["eps"][phase], phase)
        state["i"] = i + 1
        following = self._move(state, x, gradient, tables["eps"][phase])
        ending = tables["begins"][i + 1] & (phase < len(self.phases) - 1)
        if bool(ending.any()):
            following = self._next_phase(state, following, ending, tables["eps"][phase + ending.long()])
        return following

    def _checkpoint(
        self, state: RowState, x: Tensor, gradient: Tensor, due: Tensor, eps: Tensor, phase: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where a checkpoint is due: reset the step and return to the best point if sparsity has fallen by 5 %, else
        divide the step by 1.5."""
        if x.device.type == "cpu" and not bool(due.any()):
            return x, gradient
        before = state["entries"]
        # The sparsity of an unchanged best point is in the state already.
        self._measure(state, state["x_best"], due & state["moved"])
        state["moved"] &= ~due
        sparser = state["entries"] / before < 0.95
        step = torch.where(sparser, eps, state["step"] / 1.5)
        step = torch.minimum(torch.maximum(step, self.tables["eps_min"][phase]), eps)
        state["step"] = torch.where(due, step, state["step"])
        return self._back_to_best(state, x, gradient, due & sparser)

    def _move(self, state: RowState, x: Tensor, gradient: Tensor, eps: Tensor) -> Tensor:
        """A step of equal size in the largest `topk` share of the gradient's entries, then the projection."""
        clean, size = state["clean"], gradient.abs()
        threshold = per_row(kth_smallest(size.flatten(1), state["topk"]), x)
        # Comparisons into floats are vectorised on a CPU, those into bools are not; counts are exact up to 2^24.
        direction = size.ge_(threshold).mul_(gradient).sign_()
        length = per_row(torch.ne(direction, 0, out=gradient).flatten(1).sum(1), x) + 1e-10
        delta = direction.mul_(per_row(state["step"], x)).div_(length).add_(x).sub_(clean)
        return (clean + delta).add_(self.correction(clean, delta, eps))

    def _next_phase(self, state: RowState, following: Tensor, rows: Tensor, eps: Tensor) -> Tensor:
        """Rows at the end of a phase continue from their best point, projected onto the next radius."""
        clean, best = state["clean"], state["x_best"]
        start = (best + self.correction(clean, best - clean, eps)).clamp(0, 1)
        state["step"] = torch.where(rows, eps, state["step"])
        self._measure(state, start, rows)
        replace_rows_(rows, (following, start))
        return following

    def candidate(self, state: RowState) -> Tensor:
        return self.tables["phase"].to(state["i"].device)[state["i"]] == len(self.phases) - 1


def kth_smallest(values: Tensor, topk: Tensor) -> Tensor:
    """[B]: in each row of values [B, d], the entry at index int((1 - topk) * d) in ascending order."""
    d = values.shape[1]
    index = ((1.0 - topk) * d).clamp(0, d - 1).long()
    if values.is_cuda or d <= 256:
        return values.sort(dim=1).values.gather(1, index[:, None]).squeeze(1)
    # A partial sort returns the same entry in a fraction of the time.
    rows = zip(values.numpy(), index.tolist(), strict=True)
    return torch.tensor([float(np.partition(row, at)[at]) for row, at in rows], dtype=values.dtype)

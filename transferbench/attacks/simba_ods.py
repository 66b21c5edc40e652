"""SimBA-ODS: tries both signs of directions in which the public network's outputs change, and keeps what helps.

A direction is the gradient of <w, f(x')> with w uniform on [-1, 1] for each of the source's logits, drawn anew for
every direction. The point moves along it, then against it, until the victim's margin rises; then the next direction is
drawn. The source's classes need not be the victim's. `directions=random` is the control: the same search along random
signs, without the source.

Paper: Tashiro, Song and Ermon 2020 (arXiv:2003.06878): SimBA-ODS with the margin as the loss and one source.
Threats: Linf.
Holds: the source's logits; the victim's margin at `queries` points.
Counts: every point that is queried, the clean image first.
Deviations: The paper has no ball: it moves by .2 along the gradient of length 1 and reports the distance. Here a step
is `step` of eps along the gradient's sign, projected onto the ball around the clean image and [0,1]: the Linf form of
TransferBench, whose step of 2 takes every query to a corner of the ball. BASES (arXiv:2208.03610) takes .005 at 16/255,
step=0.08; with few queries it was weaker on validation digits. Random directions gain from small steps in large
budgets, so that the control means most with both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferbench.attacks import Keys, RowState, parameters, require, select
from transferbench.attacks.query_attack import MarginAscent, budget, chosen, per_image, query_keys, rises
from transferbench.attacks.source_attack import SourceNetwork, require_positive
from transferbench.base import keyed_random
from transferbench.base.errors import FaultError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {"simba-ods": "queries: SimBA along directions that the public network's outputs give"}
PARAMETERS = {"simba-ods": {"queries": 500, "step": 2.0, "directions": "source"}}
VERSION = 1


class SimbaODS(MarginAscent):
    """`state["direction"]` [B, ...] is the sign of the current direction, `state["side"]` [B] +1 or -1: the side that
    is tried next. With +1 a new direction is due."""

    id = "simba-ods"
    control = ("directions", "random")

    def __init__(self, ball: LinfBall, queries: int, step: float, from_source: bool) -> None:
        """`step` is a share of eps."""
        super().__init__(ball, queries)
        self.step_size, self.from_source = step * ball.radius, from_source
        self.passes = queries - 1 if from_source else 0

    def start(self, x: Tensor, y: Tensor, source: SourceNetwork, keys: Keys, begin: Tensor) -> RowState:
        state = super().start(x, y, source, keys, begin)
        # The first query does not move.
        return {**state, "direction": torch.zeros_like(x), "side": torch.ones_like(state["margin"])}

    def propose(self, state: RowState, source: SourceNetwork) -> Tensor:
        due = ((state["query"] > 0) & (state["side"] > 0)).nonzero().flatten()
        if len(due):
            state["direction"] = state["direction"].index_copy(0, due, self._directions(select(state, due), source))
        moved = state["x"] + self.step_size * per_image(state["side"], state["x"]) * state["direction"]
        return self.threat.project(state["clean"], moved)

    def learn(self, state: RowState, points: Tensor, margins: Tensor) -> None:
        state["side"] = torch.where(rises(state, margins), 1.0, -state["side"])
        super().learn(state, points, margins)

    def _directions(self, state: RowState, source: SourceNetwork) -> Tensor:
        """[B, ...] of -1, 0 and 1."""
        keys, shape = query_keys(state), tuple(state["x"].shape[1:])
        if not self.from_source:
            return keyed_random.signs(keys, shape)
        with torch.enable_grad():
            point = state["x"].detach().requires_grad_(True)
            logits = source(point, "logits")["logits"]
            weights = 2 * keyed_random.uniform(keys, (logits.shape[1],)) - 1
            gradient = torch.autograd.grad((weights * logits).sum(), point)[0]
        if not bool(torch.isfinite(gradient).all()):
            rows = (~torch.isfinite(gradient.flatten(1)).all(1)).nonzero().flatten().tolist()
            raise FaultError(f"attack {self.id}: the source's gradient is not finite for rows {rows[:8]} of the batch")
        return gradient.sign()


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> SimbaODS:
    """Parameters: queries=500, step=2 (of eps), directions=source|random (random is the control).

    InputError for a bad value, or a threat other than Linf.
    """
    ball, params = require(spec, threat, LinfBall), parameters(spec)
    require_positive(spec.id, params, "step")
    directions = chosen(spec.id, params, "directions", "source", "random")
    return SimbaODS(ball, budget(spec.id, params), float(params["step"]), directions == "source")

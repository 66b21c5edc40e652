"""An active test of the evaluation: plants adversarial regions, runs the chains and counts the regions they find.

After Zimmermann et al. 2022 (arXiv:2206.13991): an evaluation that misses an existing region proves nothing when it
finds none. A robust accuracy is credible only for a victim that passes this test.

Construction, for a victim with logits z and examples x_i with prediction y_i: a point p_i = x_i + delta_i is drawn by
key, inside [0,1], with ||delta_i|| = 0.9 eps in the threat's norm. Let s(x) = <x - x_i, w_i>, w_i being the dual
direction of delta_i scaled so that s(p_i) = 1. The wrapped victim's logits are z, with the label's logit raised by H,
ten times the logit range, and the logit of one other class set to the label's logit plus H (s(x) - 0.95). So the
wrapped victim is wrong only where s exceeds .95: a cap around p_i. The victim's own gradients remain in every logit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transferbench import threats
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import Chain, ThreatModel
from transferbench.engine.chain import Target, run_chain
from transferbench.engine.verdicts import Examples
from transferbench.threats import LpBall

_WITHIN, _CAP, _RANGES = 0.9, 0.95, 10.0


@dataclass(frozen=True)
class SelftestResult:
    """The number of planted regions, and the number that each chain detected, by its name."""

    planted: int
    detected: dict[str, int]

    @property
    def passed(self) -> bool:
        """Whether every chain detected every region."""
        return all(count == self.planted for count in self.detected.values())


class _PlantedVictim(nn.Module):
    """The victim with a region planted near each of the examples x [n, ...]."""

    x: Tensor
    y: Tensor
    other: Tensor
    direction: Tensor

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, direction: Tensor, height: float) -> None:
        super().__init__()
        self.model, self.height = model, height
        classes = model(x[:1]).shape[1]
        self.register_buffer("x", x.flatten(1))
        self.register_buffer("y", y)
        self.register_buffer("other", (y + 1) % classes)
        self.register_buffer("direction", direction.flatten(1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        owner = torch.cdist(flat.detach(), self.x).argmin(1)
        y, other = self.y[owner][:, None], self.other[owner][:, None]
        along = ((flat - self.x[owner]) * self.direction[owner]).sum(1, keepdim=True)
        logits = self.model(images)
        raised = logits.gather(1, y) + self.height
        logits = logits.scatter(1, y, raised)
        return logits.scatter(1, other, raised + self.height * (along - _CAP))


def plant(model: nn.Module, x: Tensor, y: Tensor, ids: Tensor, threat: ThreatModel, seed: int = 0) -> nn.Module:
    """The wrapped victim in eval mode, for examples that it classifies correctly.

    InputError for a threat that is not the ball of a norm.
    """
    ball = _ball(threat)
    direction = ball.dual_direction(_offsets(ball, x, ids, seed))
    with torch.no_grad():
        logits = model(x)
    height = _RANGES * max(float(logits.max() - logits.min()), 1.0)
    return _PlantedVictim(model, x, y, direction, height)


def _ball(threat: ThreatModel) -> LpBall:
    ball = threats.build(threat)
    if not isinstance(ball, LpBall):
        raise InputError(f"selftest: regions are planted in the ball of a norm, not in {threat}")
    return ball


def _offsets(ball: LpBall, x: Tensor, ids: Tensor, seed: int) -> Tensor:
    """[n, ...]: the offset of each region's centre from its image, of length 0.9 eps; the centre is inside [0,1]."""
    keys = keyed_random.row_keys(keyed_random.stream("selftest", seed, str(ball)), ids)
    return ball.interior_offset(x, keys, _WITHIN)


def selftest(
    model: nn.Module,
    examples: Examples,
    chains: list[Chain],
    seed: int = 0,
    batch_size: int | None = None,
) -> SelftestResult:
    """Plant a region near every correctly classified example and attack with each chain.

    InputError when no example is classified correctly.
    """
    with torch.no_grad():
        correct = torch.eq(model(examples.x).argmax(1), examples.y).nonzero().flatten()
    if len(correct) == 0:
        raise InputError("selftest: the model predicts none of the examples correctly")
    examples = examples.at(correct)
    x, y, ids = examples
    detected = {}
    for chain in chains:
        wrapped = plant(model, x, y, ids, chain.threat, seed)
        result = run_chain(Target.prepare(wrapped, x, y, batch_size), chain, examples, seed)
        detected[chain.name] = sum(verdict.rank >= 0 for verdict in result.verdicts)
    return SelftestResult(len(x), detected)

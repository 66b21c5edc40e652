"""An active test of the evaluation itself: plant adversarial regions that are known to exist, attack, count.

After Zimmermann et al. 2022 (arXiv:2206.13991): an evaluation that cannot find what is certainly there says
nothing about what it did not find. A robust accuracy is believed only as far as this test is passed.

Construction, for a victim with logits z and examples x_i it predicts as y_i: a point p_i = x_i + delta_i is
drawn by key, inside [0,1], with ||delta_i|| = 0.9 eps in the threat's norm. Along delta_i the wrapped victim measures
s(x) = <x - x_i, w_i>, w_i being the dual direction scaled so that s(p_i) = 1. Its logits are those of the victim with
the label's logit raised by ten times the logit range, and one other class set to the label's logit plus
H (s(x) - 0.95), H being ten logit ranges. So the wrapped victim is right everywhere but where s exceeds
.95: a cap around p_i. The victim's own terrain stays in every logit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import Chain, ThreatModel
from transferbench.engine.chain import Target, run_chain

_WITHIN, _CAP, _RANGES = 0.9, 0.95, 10.0


@dataclass(frozen=True)
class Planted:
    """How many regions were planted and found, per threat name."""

    planted: int
    found: dict[str, int]

    @property
    def passed(self) -> bool:
        return all(count == self.planted for count in self.found.values())


class _Wrapped(nn.Module):
    """The victim with a region planted around each of the examples x [n, ...]."""

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
    """The wrapped victim in eval mode, for examples the model predicts correctly."""
    delta = _deltas(x, ids, threat, seed)
    flat = delta.flatten(1)
    if threat.norm == "L2":
        direction = flat / flat.square().sum(1, keepdim=True)
    else:
        # In L1 only the few entries that delta moves carry the direction, in Linf all of them.
        direction = flat.sign() / flat.abs().sum(1, keepdim=True)
    with torch.no_grad():
        logits = model(x)
    height = _RANGES * max(float(logits.max() - logits.min()), 1.0)
    return _Wrapped(model, x, y, direction, height)


def _deltas(x: Tensor, ids: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """[n, ...]: perturbations of norm 0.9 eps that stay in the box: each entry points to its roomier side."""
    shape, size = tuple(x.shape[1:]), _WITHIN * float(threat.eps)
    keys = keyed_random.row_keys(keyed_random.stream("selftest", seed, str(threat)), ids)
    side = torch.where(x < 0.5, 1.0, -1.0)
    if threat.norm == "Linf":
        if size > 0.5:
            raise InputError(f"selftest: no point at 0.9 x {threat} fits into [0,1] around every pixel")
        return size * side
    if threat.norm == "L2":
        weight = keyed_random.uniform(keys, shape).flatten(1) + 0.5
        return (size * weight / weight.norm(dim=1, keepdim=True)).view_as(x) * side
    # As many entries as are needed for none to move by more than .45, chosen by key.
    count = max(int(-(-size // 0.45)), 1)
    order = keyed_random.uniform(keys, shape).flatten(1).argsort(1)[:, :count]
    flat = torch.zeros_like(x.flatten(1)).scatter(1, order, size / count)
    return flat.view_as(x) * side


def selftest(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    chains: list[Chain],
    seed: int = 0,
    batch_size: int | None = None,
) -> Planted:
    """Plant a region around every correct example and attack it with each chain. InputError if none is correct."""
    with torch.no_grad():
        keep = torch.eq(model(x).argmax(1), y).nonzero().flatten()
    if len(keep) == 0:
        raise InputError("selftest: the model predicts none of the examples correctly")
    x, y, ids = x[keep], y[keep], ids[keep]
    found = {}
    for chain in chains:
        wrapped = plant(model, x, y, ids, chain.threat, seed)
        done = run_chain(Target.prepare(wrapped, x, y, batch_size), chain, x, y, ids, seed)
        found[chain.name] = sum(verdict.rank >= 0 for verdict in done.verdicts)
    return Planted(len(x), found)

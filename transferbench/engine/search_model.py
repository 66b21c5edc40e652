"""The search model: a fast copy of the network for the pool (no parameter gradients, batch norm folded, channels_last).

It only proposes. Whatever it finds is confirmed on the original model (engine/judge.py), and so is the best
point of every try that found nothing, so a difference in the last bits cannot change a verdict unseen.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from transferbench.base.settings import MIN_ROWS
from transferbench.engine.inplace_relu import overwrite_relus
from transferbench.engine.row_counter import Counted

_LOG = logging.getLogger(__name__)
_CLOSE = 1e-4
"""A copy is used when its logits are within this share of the logit range, on the sample and beside it..."""
_CLOSE_GRADIENT, _MEDIAN_GRADIENT = 1e-1, 1e-2
"""...and its input gradients within this share of their length in every row, and in the median row. Where logits round
kinks flip, and in a deep network some row always stands at one: there the difference is more than rounding."""


@dataclass(frozen=True)
class SearchModel:
    """`network` maps [B, C, H, W] to logits; `floor` is the smallest batch in which a row's arithmetic does not
    depend on its neighbours; `folded` and `copied` go into the record; `rows` went through model and copies to compare
    them."""

    network: Callable[[Tensor], Tensor]
    floor: int
    folded: bool
    copied: bool
    rows: int = 0


def copy_of(model: nn.Module, sample: Tensor, fold: bool = True) -> SearchModel:
    """The fastest faithful copy of an eval-mode model: folded, else plain, else the model itself.

    `sample` [B, C, H, W] are images on which a copy must agree with the model; models whose outputs vary from
    call to call must not come here (pre-flight finds them): use `as_is`.
    """
    noisy = (sample + 0.1 * torch.linspace(-1, 1, sample.numel(), device=sample.device).view_as(sample)).clamp(0, 1)
    half = MIN_ROWS // 2
    probe = _at_least(torch.cat([sample[:half], noisy[-half:]]), MIN_ROWS)
    asked = [Counted(model)]
    for folding in (True, False) if fold else (False,):
        try:
            plain = copy.deepcopy(model).requires_grad_(False)
            copied = overwrite_relus(fuse(plain)) if folding else plain
            network = _ChannelsLast(copied.to(memory_format=torch.channels_last))
            asked.append(Counted(network))
            if _agree(asked[0], asked[-1], probe):
                return SearchModel(network, 4, folding, True, sum(each.rows for each in asked))
        except Exception as error:
            _LOG.debug("no %s copy: %s", "folded" if folding else "plain", error)
    return replace(as_is(model), rows=sum(each.rows for each in asked))


def as_is(model: nn.Module, min_rows: int = MIN_ROWS) -> SearchModel:
    """The model itself, for networks that cannot be copied or whose state changes between calls."""
    return SearchModel(model, min_rows, False, False)


class _ChannelsLast:
    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, x: Tensor) -> Tensor:
        output: Tensor = self.network(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x)
        return output


def _at_least(x: Tensor, rows: int) -> Tensor:
    return x if len(x) >= rows else x.repeat(-(-rows // len(x)), *[1] * (x.dim() - 1))[:rows]


def _agree(model: Callable[[Tensor], Tensor], copied: Callable[[Tensor], Tensor], probe: Tensor) -> bool:
    """Whether logits and input gradients are the model's. A trace drops what a custom autograd function does on
    the way back (a straight-through estimator, say): equal logits alone would let the copy hide gradients."""
    expected, slope = outputs(model, probe)
    got, other = outputs(copied, probe)
    spread = max(float(expected.max() - expected.min()), 1e-6)
    lengths = slope.flatten(1).norm(dim=1)
    # A row that is all but flat has nothing but rounding to compare.
    apart = (slope - other).flatten(1).norm(dim=1) / lengths.clamp(min=1e-3 * max(float(lengths.max()), 1e-9))
    return (
        bool(torch.isfinite(got).all())
        and float((expected - got).abs().max()) <= _CLOSE * spread
        and bool(torch.isfinite(other).all())
        and float(apart.max()) <= _CLOSE_GRADIENT
        and float(apart.median()) <= _MEDIAN_GRADIENT
    )


def outputs(network: Callable[[Tensor], Tensor], probe: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the input gradient of their sum under fixed unequal weights."""
    with torch.enable_grad():
        point = probe.detach().clone().requires_grad_()
        output = network(point)
        weights = torch.linspace(-1, 1, output.shape[1], device=output.device)
        (slope,) = torch.autograd.grad((output * weights).sum(), point)
    return output.detach(), slope

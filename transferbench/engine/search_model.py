"""The search model: a fast copy of the network for the pool (no parameter gradients, batch norm folded, channels_last).

It only proposes points. The judge confirms them on the original model (engine/judge.py), and also the best point of
every failed try, so that a difference in the last bits cannot change a verdict.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from transferbench.base.settings import MIN_ROWS, Precision
from transferbench.engine.folding import folded
from transferbench.engine.gradients import outputs
from transferbench.engine.inplace_relu import overwrite_relus
from transferbench.engine.row_counter import RowCounter

_LOG = logging.getLogger(__name__)
_CLOSE = 1e-4
"""Maximum difference of a copy's logits, as a share of the logit range, on the sample and on noisy images."""
_CLOSE_GRADIENT, _MEDIAN_GRADIENT = 1e-1, 1e-2
"""Maximum and median difference of its input gradients, as a share of their length per row. The maximum is larger than
rounding, because in a deep network some row is always near a kink of a ReLU."""


@dataclass(frozen=True)
class SearchModel:
    """`network` maps images [B, ...] to logits [B, C]; `floor` is the smallest batch in which a row's result does not
    depend on the batch size.

    `folded` (batch norm folded into the convolutions) is part of the record; `copied`: not the model itself; `rows` is
    the number of rows that passed through model and copies to compare them.
    """

    network: Callable[[Tensor], Tensor]
    floor: int
    folded: bool
    copied: bool
    rows: int = 0
    precision: Precision = "fp32"

    @property
    def module(self) -> nn.Module:
        """The module that `network` calls."""
        module = self.network if isinstance(self.network, nn.Module) else getattr(self.network, "network", None)
        assert isinstance(module, nn.Module)
        return module


def copy_of(model: nn.Module, sample: Tensor, fold: bool = True) -> SearchModel:
    """The fastest copy of an eval-mode model that agrees with it on `sample` [B, ...]: folded, else plain, else itself.

    Not for models whose outputs vary from call to call (the pre-flight flags them): use `as_is`.
    """
    noisy = (sample + 0.1 * torch.linspace(-1, 1, sample.numel(), device=sample.device).view_as(sample)).clamp(0, 1)
    half = MIN_ROWS // 2
    probe = repeated(torch.cat([sample[:half], noisy[-half:]]), MIN_ROWS)
    counters = [RowCounter(model)]
    for folding in (True, False) if fold else (False,):
        try:
            plain = copy.deepcopy(model).requires_grad_(False)
            candidate = overwrite_relus(folded(plain)) if folding else plain
            # On a GPU float32 without TF32 is faster as it is (bfloat16 in channels_last: bf16.py).
            layout = torch.contiguous_format if sample.is_cuda else torch.channels_last
            network = _InLayout(candidate.to(memory_format=layout), layout)
            counters.append(RowCounter(network))
            if _agree(counters[0], counters[-1], probe):
                return SearchModel(network, 4, folding, True, sum(counter.rows for counter in counters))
        except Exception as error:
            _LOG.debug("no %s copy: %s", "folded" if folding else "plain", error)
    return replace(as_is(model), rows=sum(counter.rows for counter in counters))


def as_is(model: nn.Module, min_rows: int = MIN_ROWS) -> SearchModel:
    """The model itself as the search model, for networks that cannot be copied or whose state changes between calls."""
    return SearchModel(model, min_rows, False, False)


class _InLayout:
    """Calls the network with images in a memory layout."""

    def __init__(self, network: nn.Module, layout: torch.memory_format) -> None:
        self.network, self.layout = network, layout

    def __call__(self, x: Tensor) -> Tensor:
        output: Tensor = self.network(x.contiguous(memory_format=self.layout) if x.dim() == 4 else x)
        return output


def repeated(x: Tensor, rows: int) -> Tensor:
    """x repeated to at least `rows` rows."""
    return x if len(x) >= rows else x.repeat(-(-rows // len(x)), *[1] * (x.dim() - 1))[:rows]


def _agree(model: Callable[[Tensor], Tensor], candidate: Callable[[Tensor], Tensor], probe: Tensor) -> bool:
    """Whether the candidate's logits and input gradients are close to the model's.

    Gradients are compared because a trace loses the backward pass of a custom autograd function (a straight-through
    estimator, for example).
    """
    expected, expected_gradient = outputs(model, probe)
    logits, gradient = outputs(candidate, probe)
    spread = max(float(expected.max() - expected.min()), 1e-6)
    lengths = expected_gradient.flatten(1).norm(dim=1)
    # The minimum excludes rows whose gradient is nearly zero: their relative difference is rounding.
    minimum = 1e-3 * max(float(lengths.max()), 1e-9)
    difference = (expected_gradient - gradient).flatten(1).norm(dim=1) / lengths.clamp(min=minimum)
    return (
        bool(torch.isfinite(logits).all())
        and float((expected - logits).abs().max()) <= _CLOSE * spread
        and bool(torch.isfinite(gradient).all())
        and float(difference.max()) <= _CLOSE_GRADIENT
        and float(difference.median()) <= _MEDIAN_GRADIENT
    )

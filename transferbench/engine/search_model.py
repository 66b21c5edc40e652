"""The search model: a fast copy of the network for the pool (no parameter gradients, batch norm folded, channels_last).

It only proposes points. The judge confirms them on the original model (engine/judge.py), and also the best point of
every failed try, so that a difference in the last bits cannot change a verdict.

In bf16 the differences are larger: there a row's margin may be zero in fp32 at a point that bf16 holds for robust, and
its gradient points elsewhere. Examples whose best point came near (`NEAR`) are searched once more in fp32
(engine/chain.py).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from transferbench.base.errors import InputError
from transferbench.base.settings import MIN_ROWS, Precision
from transferbench.engine.inplace_relu import overwrite_relus
from transferbench.engine.row_counter import RowCounter

NEAR = 0.02
"""An example that a search in bf16 left with a margin of its label below this share of the logit range, at the original
model in fp32, is searched again in fp32. Chosen on the letters networks (docs/performance.md)."""
_LOG = logging.getLogger(__name__)
_CLOSE = 1e-4
"""Maximum difference of a copy's logits, as a share of the logit range, on the sample and on noisy images."""
_BF16_CLOSE, _BF16_COSINE = 0.1, 0.9
"""Maximum difference of the logits in bf16, as a share of their range, and minimum median cosine of the gradients."""
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


def copy_of(model: nn.Module, sample: Tensor, fold: bool = True) -> SearchModel:
    """The fastest copy of an eval-mode model that agrees with it on `sample` [B, ...]: folded, else plain, else itself.

    Not for models whose outputs vary from call to call (the pre-flight flags them): use `as_is`.
    """
    noisy = (sample + 0.1 * torch.linspace(-1, 1, sample.numel(), device=sample.device).view_as(sample)).clamp(0, 1)
    half = MIN_ROWS // 2
    probe = _at_least(torch.cat([sample[:half], noisy[-half:]]), MIN_ROWS)
    counters = [RowCounter(model)]
    for folding in (True, False) if fold else (False,):
        try:
            plain = copy.deepcopy(model).requires_grad_(False)
            candidate = overwrite_relus(fuse(plain)) if folding else plain
            network = _ChannelsLast(candidate.to(memory_format=torch.channels_last))
            counters.append(RowCounter(network))
            if _agree(counters[0], counters[-1], probe):
                return SearchModel(network, 4, folding, True, sum(counter.rows for counter in counters))
        except Exception as error:
            _LOG.debug("no %s copy: %s", "folded" if folding else "plain", error)
    return replace(as_is(model), rows=sum(counter.rows for counter in counters))


def in_bf16(search: SearchModel, model: nn.Module, sample: Tensor) -> SearchModel:
    """The search model of an eval-mode model in bfloat16: `search` with its weights, and images, in that type.

    InputError where the device has no native bf16, where there is no copy, and where the copy does not follow the model
    on `sample` [B, ...].
    """
    device = sample.device
    if not has_bf16(device):
        name = "this GPU" if device.type == "cuda" else "this processor"
        raise InputError(f"--precision bf16: {name} has no native bfloat16, where it would be slow: use fp32")
    if not isinstance(search.network, _ChannelsLast):
        raise InputError(
            "--precision bf16: this network is searched on as it is (no copy of it has the same answers): use fp32"
        )
    network = _InBf16(search.network.network)
    counters = RowCounter(model), RowCounter(network)
    probe = _at_least(sample, MIN_ROWS)
    expected, expected_gradient = outputs(counters[0], probe)
    logits, gradient = outputs(counters[1], probe)
    spread = float(expected.max() - expected.min())
    cosine = torch.cosine_similarity(expected_gradient.flatten(1), gradient.flatten(1)).median()
    difference = float((expected - logits).abs().max()) / max(spread, 1e-6)
    if not (difference <= _BF16_CLOSE and float(cosine) >= _BF16_COSINE):
        raise InputError(
            f"--precision bf16: this network's logits differ in it by {difference:.2f} of their range, its gradients' "
            f"median cosine is {float(cosine):.2f}: use fp32"
        )
    rows = sum(counter.rows for counter in counters)
    return SearchModel(network, search.floor, search.folded, True, search.rows + rows, "bf16")


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def as_is(model: nn.Module, min_rows: int = MIN_ROWS) -> SearchModel:
    """The model itself as the search model, for networks that cannot be copied or whose state changes between calls."""
    return SearchModel(model, min_rows, False, False)


class _ChannelsLast:
    """Calls the network with images in channels_last layout."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, x: Tensor) -> Tensor:
        output: Tensor = self.network(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x)
        return output


class _InBf16:
    """Calls a copy of the network, made here, in bfloat16; images come and logits leave in float32."""

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network).to(torch.bfloat16)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(torch.bfloat16)
        output: Tensor = self.network(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x)
        return output.float()


def _at_least(x: Tensor, rows: int) -> Tensor:
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


def outputs(network: Callable[[Tensor], Tensor], probe: Tensor) -> tuple[Tensor, Tensor]:
    """(logits [B, C], input gradient [B, ...] of their sum with fixed unequal weights)."""
    with torch.enable_grad():
        point = probe.detach().clone().requires_grad_()
        output = network(point)
        weights = torch.linspace(-1, 1, output.shape[1], device=output.device)
        (gradient,) = torch.autograd.grad((output * weights).sum(), point)
    return output.detach(), gradient

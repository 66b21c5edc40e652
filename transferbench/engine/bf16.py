"""The search model in bfloat16, with its first layer and its head in float32.

A pixel in [0,1] has steps of up to 1/256 in bfloat16, as large as an attack's; a loss made of bfloat16 logits does not
show the small gains by which APGD chooses its step size. Both layers cost little.

Verdicts are of the original model in fp32 all the same (engine/judge.py). What remains is that the search may follow
another path and stop short. Examples whose best point came near the decision boundary (`NEAR`) are searched once more
in fp32 (engine/chain.py).
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.base.settings import MIN_ROWS
from transferbench.engine.gradients import outputs
from transferbench.engine.row_counter import RowCounter
from transferbench.engine.search_model import SearchModel, repeated

_LOG = logging.getLogger(__name__)

NEAR = 0.03
"""An example that a search in bf16 left with a margin of its label below this share of the logit range, at the original
model in fp32, is searched again in fp32. Chosen on validation letters with the letters' two networks: none of 1,504
verdicts in Linf and L2 needed it; in L1, where 16 of 446 survivors were missed, it meets 9 of them and 10 % of the
survivors (.02: 6 and 6 %, .05: 10 and 16 %)."""
_CLOSE, _COSINE = 0.1, 0.9
"""Maximum difference of the logits, as a share of their range, and minimum median cosine of the input gradients."""
_PASSES = 3
"""Timed passes of either precision: grouped convolutions in bf16 were seen to take 17 times as long on a GPU."""
_FLAGS = (" avx512_bf16", " amx_bf16", " bf16")


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in text for flag in _FLAGS)


def in_bf16(search: SearchModel, model: nn.Module, sample: Tensor) -> SearchModel:
    """The search model of an eval-mode model in bfloat16, made of its copy in fp32.

    InputError where the device has no native bf16, where there is no copy, and where the one in bf16 does not follow
    the model on `sample` [B, ...].
    """
    device = sample.device
    if not has_bf16(device):
        name = "this GPU" if device.type == "cuda" else "this processor"
        raise InputError(f"--precision bf16: {name} has no native bfloat16 and would be slow: use fp32")
    if not search.copied:
        raise InputError(
            "--precision bf16: this network is searched on as it is (no copy of it has the same answers): use fp32"
        )
    probe = repeated(sample, MIN_ROWS)
    expected, expected_gradient = outputs(model, probe)
    try:
        network = _InBf16(search.module, probe)
        counter = RowCounter(network)
        logits, gradient = outputs(counter, probe)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--precision bf16: this network does not run in it ({reason}): use fp32") from None
    spread = max(float(expected.max() - expected.min()), 1e-6)
    difference = float((expected - logits).abs().max()) / spread
    cosine = float(torch.cosine_similarity(expected_gradient.flatten(1), gradient.flatten(1)).median())
    if not (difference <= _CLOSE and cosine >= _COSINE):
        raise InputError(
            f"--precision bf16: this network's logits differ in it by {difference:.2f} of their range, and the median "
            f"cosine of its gradients is {cosine:.2f}: use fp32"
        )
    slower = _seconds(network, probe) / _seconds(search.network, probe)
    if slower > 1:
        _LOG.warning("a pass in bf16 takes %.1f times as long as one in fp32 on this network and machine", slower)
    rows = search.rows + 2 * len(probe) + counter.rows + 2 * _PASSES * len(probe)
    return SearchModel(network, search.floor, search.folded, True, rows, "bf16")


def _seconds(network: Callable[[Tensor], Tensor], probe: Tensor) -> float:
    """Wall clock of the fastest of a few passes, forward and backward."""
    times = []
    for _ in range(_PASSES):
        began = time.perf_counter()
        _, gradient = outputs(network, probe)
        # Read, because a GPU is still computing when the call returns.
        float(gradient.sum())
        times.append(time.perf_counter() - began)
    return min(times)


class _InBf16:
    """Calls a copy of a network; images come and logits leave in float32."""

    def __init__(self, network: nn.Module, probe: Tensor) -> None:
        self.network = copy.deepcopy(network).to(memory_format=torch.channels_last)
        first, last = _ends(self.network, probe)
        for module in self.network.modules():
            if module is first or module is last:
                continue
            if any(True for _ in module.parameters(recurse=False)):
                # Its buffers too; those of modules without weights (a normalisation's mean) stay as they are.
                for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                    if tensor.is_floating_point():
                        tensor.data = tensor.data.to(torch.bfloat16)
        first.register_forward_hook(_to_bf16)
        if last is not first:
            last.register_forward_pre_hook(_to_float32)

    def __call__(self, x: Tensor) -> Tensor:
        output: Tensor = self.network(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x)
        return output.float()


def _ends(network: nn.Module, probe: Tensor) -> tuple[nn.Module, nn.Module]:
    """The leaves with weights that run first and last."""
    order: list[nn.Module] = []

    def record(module: nn.Module, _: Any) -> None:
        order.append(module)

    leaves = [
        module
        for module in network.modules()
        if not list(module.children()) and any(True for _ in module.parameters(recurse=False))
    ]
    handles = [module.register_forward_pre_hook(record) for module in leaves]
    with torch.no_grad():
        network(probe)
    for handle in handles:
        handle.remove()
    if not order:
        raise TypeError("it has no layers with weights, as a function has none")
    return order[0], order[-1]


def _to_bf16(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    return output.to(torch.bfloat16)


def _to_float32(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(part.float() for part in inputs)

"""LoRA on any network: low-rank updates of weights in place, and merging them into a plain network.

W + alpha/r B A, B [out, r] being 0 and A [r, in] random at the start (Hu et al. 2022, arXiv:2106.09685). With both 0,
as in a released configuration, nothing would ever move. A convolution's weight is taken as a matrix [out, in kh kw], so
that A is a convolution into r channels and B one of 1x1, as in PEFT.

What is updated: the query and value projections of attention, also where they are rows of one matrix with the keys
(queries first, values last); in a network without attention every convolution but the first; else every linear layer
but the head.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from transferbench.base.errors import InputError
from transferbench.models.features import Layers

_PART = re.compile(r"(.*\.)?parametrizations\.\w+\.0\.(down|up)\.\d+")
_PROJECTIONS = ("query", "value", "q_proj", "v_proj", "to_q", "to_v", "q", "v")


class UpdatedWeight(NamedTuple):
    """A weight that is updated: its module, its name there, and the ranges of its rows."""

    module: nn.Module
    name: str
    rows: tuple[tuple[int, int], ...]


class LowRankUpdate(nn.Module):
    """weight -> weight + scale B A on each range of rows, as a parametrisation of torch."""

    def __init__(self, weight: Tensor, rows: tuple[tuple[int, int], ...], rank: int, scale: float) -> None:
        super().__init__()
        self.rows, self.scale, self.out = rows, scale, len(weight)
        inputs = weight[0].numel()
        self.down = nn.ParameterList(weight.new_empty(rank, inputs) for _ in rows)
        self.up = nn.ParameterList(weight.new_zeros(stop - start, rank) for start, stop in rows)
        for down in self.down:
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        pieces, at = [], 0
        flat = weight.flatten(1)
        for (start, stop), down, up in zip(self.rows, self.down, self.up, strict=True):
            pieces += [flat[at:start], flat[start:stop] + self.scale * (up @ down)]
            at = stop
        return torch.cat([*pieces, flat[at:]]).view_as(weight)


def insert(model: nn.Module, layers: Layers, rank: int, alpha: float) -> None:
    """Add updates of that rank to the network, in place. InputError where it has nothing to update."""
    for module, name, rows in targets(model, layers):
        weight = getattr(module, name)
        update = LowRankUpdate(weight.detach(), rows, rank, alpha / rank)
        parametrize.register_parametrization(module, name, update)


def merge(model: nn.Module) -> None:
    """Add all updates to the weights and take them off, in place. The network's logits stay the same."""
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        names = [name for name, parts in module.parametrizations.items() if isinstance(parts[0], LowRankUpdate)]  # type: ignore[union-attr, operator]
        for name in names:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def is_part(name: str) -> bool:
    """Whether the name of a parameter is that of an update."""
    return _PART.fullmatch(name) is not None


def targets(model: nn.Module, layers: Layers) -> list[UpdatedWeight]:
    """The weights that are updated. InputError where there are none, or one is computed from others already."""
    named = [(name, module) for name, module in model.named_modules() if name != layers.head]
    found = [target for name, module in named for target in _attention(name, module)]
    if not found:
        found = [_whole(module, "weight") for _, module in named if isinstance(module, _ConvNd)][1:]
    if not found:
        found = [_whole(module, "weight") for _, module in named if isinstance(module, nn.Linear)]
    if not found:
        raise InputError(f"the network {type(model).__name__} has no attention, convolution or linear layer for LoRA")
    for target in found:
        if parametrize.is_parametrized(target.module, target.name):
            raise InputError(f"{type(target.module).__name__}: LoRA needs its {target.name} plain")
    return found


def _attention(name: str, module: nn.Module) -> list[UpdatedWeight]:
    """The query's and value's weights of a module of that name, if it is one of attention."""
    own = name.rpartition(".")[2]
    if isinstance(module, nn.MultiheadAttention):
        if getattr(module, "in_proj_weight", None) is None:
            return [_whole(module, part) for part in ("q_proj_weight", "v_proj_weight")]
        return [_fused(module, "in_proj_weight")]
    if isinstance(module, nn.Linear) and own == "qkv" and module.out_features % 3 == 0:
        return [_fused(module, "weight")]
    return [_whole(module, "weight")] if isinstance(module, nn.Linear) and own in _PROJECTIONS else []


def _fused(module: nn.Module, name: str) -> UpdatedWeight:
    width = len(getattr(module, name)) // 3
    return UpdatedWeight(module, name, ((0, width), (2 * width, 3 * width)))


def _whole(module: nn.Module, name: str) -> UpdatedWeight:
    return UpdatedWeight(module, name, ((0, len(getattr(module, name))),))

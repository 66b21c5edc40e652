"""Two batch norms in the place of each: what two kinds of images have of their own in a network that they share.

Every image goes through one branch of all norms. TWINS keeps the first branch's statistics at the source's, RobustSSL's
dual batch norm keeps clean images in the first and adversarial ones in the second.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Branch = Literal["first", "second", "halves"]
"""`halves`: the first half of a batch through the first branch, the rest through the second."""


class TwinNorm(nn.Module):
    """Both begin as copies of one norm. With `frozen` the first uses its running statistics in train mode too, and
    never updates them."""

    def __init__(self, norm: nn.Module, frozen: bool) -> None:
        super().__init__()
        self.first, self.second, self.frozen = copy.deepcopy(norm), norm, frozen
        self.branch: Branch = "second"
        self.train(norm.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.first.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        if self.branch == "halves":
            half = len(x) // 2
            return torch.cat([self.first(x[:half]), self.second(x[half:])])
        chosen: Tensor = (self.first if self.branch == "first" else self.second)(x)
        return chosen


def insert(model: nn.Module, frozen: bool) -> int:
    """Put twins in the place of all batch norms, in place. Returns how many there are."""
    norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    for name in norms:
        _replace(model, name, TwinNorm(model.get_submodule(name), frozen))
    return len(norms)


def keep(model: nn.Module, branch: Literal["first", "second"]) -> None:
    """Put one branch in the place of all twins, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, TwinNorm):
            _replace(model, name, getattr(module, branch))


@contextmanager
def through(model: nn.Module, branch: Branch) -> Iterator[nn.Module]:
    """Within the block images go through that branch of all twins, outside it through the second."""
    twins = [module for module in model.modules() if isinstance(module, TwinNorm)]
    for twin in twins:
        twin.branch = branch
    try:
        yield model
    finally:
        for twin in twins:
            twin.branch = "second"


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent) if parent else model, own, module)

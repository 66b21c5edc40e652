"""Penultimate and per-stage features by context-managed hooks: no network has to be written for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.types import InputError


class Layers(NamedTuple):
    """Where a network's features are: the names of its stages, in order, and of its classifying layer."""

    stages: tuple[str, ...]
    head: str


class Tapped(NamedTuple):
    """Filled by the forward pass: each stage's output by name, and what went into the head [B, width]."""

    stages: dict[str, Tensor]
    penultimate: dict[str, Tensor]


def submodule(model: nn.Module, name: str) -> nn.Module:
    """The module of that name. InputError names it when the network has none."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise InputError(f"the network {type(model).__name__} has no module {name!r}") from None


@contextmanager
def tap(model: nn.Module, layers: Layers, stages: Sequence[str] = ()) -> Iterator[Tapped]:
    """Within the block every forward pass leaves the named stages' outputs and the head's input in the result.

    The taps come before any other hook of a stage, so spatial dropout (below) does not change what they see.
    """
    tapped = Tapped({}, {})

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            tapped.stages[name] = output

        return hook

    def keep_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        tapped.penultimate[layers.head] = inputs[0]

    with ExitStack() as hooks:
        hooks.callback(submodule(model, layers.head).register_forward_pre_hook(keep_input).remove)
        for name in stages:
            hooks.callback(submodule(model, name).register_forward_hook(keep(name), prepend=True).remove)
        yield tapped


@contextmanager
def spatial_dropout(model: nn.Module, stages: Sequence[str], p: float) -> Iterator[None]:
    """Within the block whole channels of each stage's output are dropped with probability p in train mode."""

    def drop(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return F.dropout2d(output, p, model.training)

    with ExitStack() as hooks:
        for name in stages:
            hooks.callback(submodule(model, name).register_forward_hook(drop).remove)
        yield


class Penultimate:
    """The network without its head: images [B, ...] -> what goes into the head [B, width]."""

    def __init__(self, model: nn.Module, layers: Layers) -> None:
        self.model, self.layers = model, layers

    def __call__(self, x: Tensor) -> Tensor:
        with tap(self.model, self.layers) as tapped:
            self.model(x)
        return tapped.penultimate[self.layers.head].flatten(1)


def layers_of(model: nn.Module) -> Layers:
    """Where a network's classifying layer is when nobody says so: its last Linear. InputError when it has none."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError(f"{type(model).__name__} has no Linear layer: its penultimate features cannot be found")
    return Layers((), linear[-1])

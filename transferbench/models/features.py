"""Penultimate and per-stage features by context-managed hooks: no network has to be written for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.base.errors import InputError

_STAGE = re.compile(r"(?P<of>(?:[a-z_]+\.)*(?:layer|block|stage)(?:_|\.)?|(?:[a-z_]+\.)*(?:layers|stages|blocks)\.)\d")


class Layers(NamedTuple):
    """Where a network's features are: the names of its stages, in order, and of its classifying layer.

    `head` is empty for a network without one linear layer at its end (an ensemble, a convolutional head).
    """

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

    if not layers.head:
        raise InputError(
            f"the network {type(model).__name__} has no single linear layer at its end: no penultimate feature"
        )
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


def find_layers(model: nn.Module, ensemble: bool = False) -> Layers:
    """Where a network's features are when nobody says so: numbered stages by name, the last Linear as the head.

    No head for an ensemble, or where the last Linear is not the last layer with weights that was registered: such
    a network has no single penultimate feature (`tap` says so).
    """
    weighted = [name for name, module in model.named_modules() if list(module.parameters(recurse=False))]
    last = weighted[-1] if weighted else ""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    head = linear[-1] if linear and not ensemble and (linear[-1] == last) else ""
    groups: dict[str, list[str]] = {}
    for name, _ in model.named_modules():
        found = _STAGE.fullmatch(name)
        if found:
            groups.setdefault(found["of"], []).append(name)
    several = [names for names in groups.values() if len(names) >= 3]
    stages = min(several, key=lambda names: names[0].count("."), default=[])
    return Layers(tuple(stages), head)

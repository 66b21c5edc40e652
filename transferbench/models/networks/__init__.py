"""Architectures. A module of this package lists them in a literal `IDS`; the ids of a family are `id:name`.

`build(id: str, num_classes: int) -> Built` returns a network with random weights. Networks take pixels in [0,1]: the
normalisation of the training is part of the architecture. A module may say in a literal `NORMALISATION` what becomes of
one that a file of weights contains: `none`, the network has no other, or `default`, it replaces the network's.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.models import heads, python_function
from transferbench.models.features import Layers, find_layers

_READS_WEIGHTS: ContextVar[bool] = ContextVar("reads_weights", default=False)
"""Whether the network is built for weights that replace all of its own."""


class Built(NamedTuple):
    """A network, the names of its feature layers, and the shape [C, H, W] of its input images."""

    model: nn.Module
    layers: Layers
    input_shape: tuple[int, ...]


@cache
def input_shape(id: str) -> tuple[int, ...]:
    """[C, H, W] of the images that a network takes, without allocating its weights. InputError for an unknown id."""
    return build_without_weights(id, 2).input_shape


def build_without_weights(id: str, num_classes: int) -> Built:
    """As `build`, with parameters that have shapes alone (on the device meta)."""
    try:
        with torch.device("meta"), _ValuesOnCpu():
            return build(id, num_classes)
    except (RuntimeError, NotImplementedError):
        # A constructor that computes with the values of its tensors.
        return build(id, num_classes)


class _ValuesOnCpu(TorchFunctionMode):
    """Within the block `torch.linspace` has values: constructors read rates of stochastic depth from it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {"device": "cpu", **(kwargs or {})} if func is torch.linspace else kwargs or {}
        return func(*args, **given)


def module_of(id: str) -> ModuleType:
    """The module that builds a network. InputError for an unknown id."""
    return registry.find_family("networks", id).load()


def build(id: str, num_classes: int) -> Built:
    """A randomly initialised network by its id (`small-resnet`, `torchvision:resnet50`).

    InputError for an unknown id. Torch's global random state is restored.
    """
    if id.startswith(python_function.PREFIX):
        return _of_function(id, num_classes)
    module = module_of(id)
    with torch.random.fork_rng(devices=[]):
        built: Built = module.build(id, num_classes)
    return built


def build_for_weights(id: str, num_classes: int) -> Built:
    """As `build`, for weights that replace all of its own.

    Also the network of a function of the user's code (`python:<module>:<function>`), alone or behind a resizing layer:
    it is what a victim that was trained from such a model has on its card. The function is imported and called.
    """
    token = _READS_WEIGHTS.set(True)
    try:
        return build(id, num_classes)
    finally:
        _READS_WEIGHTS.reset(token)


def _of_function(id: str, num_classes: int) -> Built:
    if not _READS_WEIGHTS.get():
        raise InputError(f"network {id}: a function returns one model, with its own weights: it has no random ones")
    python_function.check_trusted(id)
    with torch.random.fork_rng(devices=[]):
        made = python_function.call(id)
        layers = find_layers(made.model)
        if num_classes != len(made.classes):
            heads.linear(made.model, layers, num_classes)
    return Built(made.model, layers, made.input_shape)


def unstated(id: str) -> str:
    """What the id leaves to a default and no file of weights can tell, for the card; empty where it states everything.

    From the network's module, if it has a function of that name.
    """
    module = module_of(id)
    return str(module.unstated(id)) if hasattr(module, "unstated") else ""


def check_loaded(id: str, model: nn.Module, name: str) -> None:
    """Ask the network's module, if it has a function of that name, whether the loaded weights belong to what the id
    states. InputError, with the file's `name`, where they show that they do not."""
    if id.startswith(python_function.PREFIX):
        return
    module = module_of(id)
    if hasattr(module, "check_loaded"):
        module.check_loaded(id, model, name)

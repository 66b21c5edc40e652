"""Penultimate and per-stage features of any network, by forward hooks in context managers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.base.errors import InputError

_STAGE = re.compile(r"(?P<of>(?:[a-z_]+\.)*(?:layer|block|stage)(?:_|\.)?|(?:[a-z_]+\.)*(?:layers|stages|blocks)\.)\d+")
_TWO_HEADS = ({"head", "head_dist"}, {"cls_classifier", "distillation_classifier"})
"""The classifiers of distilled DeiTs in timm and transformers: the answer is their mean."""
_CHANNELS_LAST = ("SwinTransformerStage", "SwinTransformerV2Stage", "SwinTransformerBlock", "SwinTransformerBlockV2")
"""Modules of timm and torchvision whose maps are [B, H, W, C]."""


class Layers(NamedTuple):
    """The names of a network's stages, in order, and of its classifying layer.

    `head` is empty for a network that does not end with one linear layer (an ensemble, a convolutional head, the two
    heads of a distilled DeiT). `channels_last`: maps are [B, H, W, C], as Swin's; tokens [B, N, C] are known by their
    three dimensions.
    """

    stages: tuple[str, ...]
    head: str
    channels_last: bool = False


def behind(name: str, layers: Layers) -> Layers:
    """The layers of a network that has become the part `name` of another."""
    stages = tuple(f"{name}.{stage}" for stage in layers.stages)
    return layers._replace(stages=stages, head=f"{name}.{layers.head}" if layers.head else "")


def channels_first(output: Tensor, layers: Layers) -> Tensor:
    """A stage's output as [B, C, ...]: maps [B, C, H, W] unchanged, tokens [B, N, C] and maps [B, H, W, C] permuted."""
    if output.dim() == 3 or (output.dim() == 4 and layers.channels_last):
        return output.movedim(-1, 1)
    return output


def output_of(given: Any) -> Tensor:
    """The tensor that a stage returns, alone or as the first of several (transformers')."""
    output: Tensor = given[0] if isinstance(given, tuple | list) else given
    return output


class Features(NamedTuple):
    """The features of the last forward pass: stage -> its output [B, C, ...], head -> the head's input [B, width]."""

    stages: dict[str, Tensor]
    penultimate: dict[str, Tensor]


def submodule(model: nn.Module, name: str) -> nn.Module:
    """The sub-module of that name. InputError when the network has none."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise InputError(f"the network {type(model).__name__} has no module {name!r}") from None


@contextmanager
def record_features(model: nn.Module, layers: Layers, stages: Sequence[str] = ()) -> Iterator[Features]:
    """Within the block every forward pass writes the stages' outputs and the head's input to the yielded object.

    The hooks run before all other hooks of a stage, so that spatial dropout (below) does not change the features.
    InputError when the network has no head.
    """
    features = Features({}, {})

    def store_output(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            features.stages[name] = channels_first(output_of(output), layers)

        return hook

    def store_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features.penultimate[layers.head] = inputs[0]

    if not layers.head:
        raise InputError(
            f"the network {type(model).__name__} has no single linear layer at its end: no penultimate feature"
        )
    with ExitStack() as hooks:
        hooks.callback(submodule(model, layers.head).register_forward_pre_hook(store_input).remove)
        for name in stages:
            hooks.callback(submodule(model, name).register_forward_hook(store_output(name), prepend=True).remove)
        yield features


@contextmanager
def spatial_dropout(model: nn.Module, layers: Layers, p: float) -> Iterator[None]:
    """Within the block each stage's output loses whole channels with probability p, in train mode only."""

    def drop(_: nn.Module, __: Any, output: Any) -> Any:
        return changed_channels(output, layers, lambda first: _dropped(first, p, model.training))

    with ExitStack() as hooks:
        for name in layers.stages:
            hooks.callback(submodule(model, name).register_forward_hook(drop).remove)
        yield


def changed_channels(output: Any, layers: Layers, change: Callable[[Tensor], Tensor]) -> Any:
    """What a stage returns with its tensor changed; `change` sees it as [B, C, ...]."""
    own = output_of(output)
    first = channels_first(own, layers)
    changed = change(first)
    changed = changed if first is own else changed.movedim(1, -1)
    return type(output)((changed, *output[1:])) if isinstance(output, tuple | list) else changed


def _dropped(first: Tensor, p: float, training: bool) -> Tensor:
    """[B, C, ...] without the channels that the draw takes."""
    # dropout2d takes three dimensions for a single image.
    return F.dropout1d(first, p, training) if first.dim() == 3 else F.dropout2d(first, p, training)


class Penultimate:
    """The network without its head: images [B, ...] -> the head's input [B, width]."""

    def __init__(self, model: nn.Module, layers: Layers) -> None:
        self.model, self.layers = model, layers

    def __call__(self, x: Tensor) -> Tensor:
        with record_features(self.model, self.layers) as features:
            self.model(x)
        return features.penultimate[self.layers.head].flatten(1)


def find_layers(model: nn.Module, ensemble: bool = False) -> Layers:
    """The layers of any network by convention: three or more numbered modules are its stages, the last Linear its head.

    Every block of a ViT is a stage. The head is empty for an ensemble, where another layer with weights is registered
    after the last Linear, and for the two heads of a distilled DeiT: such a network has no single penultimate feature.
    """
    weighted = [name for name, module in model.named_modules() if list(module.parameters(recurse=False))]
    last = weighted[-1] if weighted else ""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    head = linear[-1] if linear and not ensemble and (linear[-1] == last) else ""
    if any({name.rpartition(".")[2] for name in linear} >= heads for heads in _TWO_HEADS):
        head = ""
    channels_last = any(type(module).__name__ in _CHANNELS_LAST for module in model.modules())
    groups: dict[str, list[str]] = {}
    for name, _ in model.named_modules():
        match = _STAGE.fullmatch(name)
        if match:
            groups.setdefault(match["of"], []).append(name)
    candidates = [names for names in groups.values() if len(names) >= 3]
    stages = min(candidates, key=lambda names: names[0].count("."), default=[])
    return Layers(tuple(stages), head, channels_last)

"""Which networks a method can train: each method's `student` on a small network of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from transferbench import methods
from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.methods import Network
from transferbench.models import networks
from transferbench.models.features import find_layers

_VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 10}


def _found(model: nn.Module) -> Network:
    return Network(model.eval(), find_layers(model))


KINDS: dict[str, Callable[[], Network]] = {
    "convolutions, batch norm, stages": lambda: Network(*networks.build("small-resnet", 10)[:2]),
    "transformer": lambda: _found(VisionTransformer(**_VIT)),
    "convolutions, no stages": lambda: _found(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 10))
    ),
    "linear layers alone": lambda: _found(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))),
    "two heads (distilled DeiT)": lambda: _found(VisionTransformerDistilled(**_VIT)),
}
"""A network of every kind."""


def trains(id: str, given: dict[str, Any], network: Network) -> bool:
    """Whether the method makes a student of such a network. What a method refuses is an InputError; all else raises."""
    method = methods.build(id, given)
    try:
        with torch.random.fork_rng(devices=[]):
            method.student(network, lambda: network, 7)
    except InputError:
        return False
    return True


def variants() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> (method, settings): every method of the package, and what is tuned where it is not the whole network."""
    ids = [
        entry.id
        for entry in registry.entries("methods").values()
        if entry.module.startswith("transferbench.") and not registry.preset_of(entry)
    ]
    tuned = {f"tune={part}": ("madry", {"tune": part}) for part in ("head", "bias", "lora", "adapter")}
    return {id: (id, {}) for id in ids} | tuned


def rows() -> list[list[str]]:
    """A row for all methods that train the same kinds of networks, most kinds first."""
    made = [make() for make in KINDS.values()]
    by_kinds: dict[tuple[bool, ...], list[str]] = {}
    for name, (id, given) in variants().items():
        by_kinds.setdefault(tuple(trains(id, given, network) for network in made), []).append(f"`{name}`")
    ordered = sorted(by_kinds.items(), key=lambda item: (-sum(item[0]), item[1]))
    return [[", ".join(names), *("yes" if kind else "no" for kind in kinds)] for kinds, names in ordered]

"""Replaces a network's classifying layers by a new head for other classes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from transferbench.base.errors import InputError
from transferbench.models.features import Layers, submodule


def linear(model: nn.Module, layers: Layers, num_classes: int) -> None:
    """Replace the head, in place, by a randomly initialised linear layer. InputError where it is not a linear layer."""
    _replace(model, layers, nn.Linear(_width(model, layers), num_classes))


def initialise(model: nn.Module, layers: Layers, how: Literal["zero", "focal"]) -> None:
    """Draw a new linear head's weights anew, in place.

    zero   weights and biases 0, so that the network first answers alike for every image (RobustSSL)
    focal  Kaiming's normal by fan-out, and biases of -log 99: every class begins with one in a hundred (RoLI)
    """
    head = submodule(model, layers.head) if layers.head else model
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        if how == "zero":
            head.weight.zero_()
            head.bias.zero_()
        else:
            nn.init.kaiming_normal_(head.weight, mode="fan_out")
            head.bias.fill_(-math.log(99))


def mlp(
    model: nn.Module, layers: Layers, num_classes: int, hidden: Sequence[int], batch_norm: bool, dropout: float
) -> Layers:
    """Replace the head, in place, by [linear, (batch norm), ReLU, (dropout)] per hidden width and a linear layer.

    Returns the layers with the last linear one as the head. InputError where the old head is not one linear layer.
    """
    parts: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise((_width(model, layers), *hidden)):
        parts.append(nn.Linear(inputs, outputs))
        parts += [nn.BatchNorm1d(outputs)] if batch_norm else []
        parts.append(nn.ReLU())
        parts += [nn.Dropout(dropout)] if dropout else []
    parts.append(nn.Linear(hidden[-1], num_classes))
    _replace(model, layers, nn.Sequential(*parts))
    return layers._replace(head=f"{layers.head}.{len(parts) - 1}")


def as_new(model: nn.Module, layers: Layers, num_classes: int) -> None:
    """Bring the head into the form of a new one, for weights of a training that made one: an own head of the same
    number of classes may lack the bias."""
    head: nn.Module = submodule(model, layers.head) if layers.head else model
    if isinstance(head, nn.Linear) and "bias" not in dict(head.named_parameters()):
        with torch.random.fork_rng(devices=[]):
            linear(model, layers, num_classes)


def _width(model: nn.Module, layers: Layers) -> int:
    """The number of penultimate features. InputError where the head is not one linear layer."""
    if not layers.head and not isinstance(model, nn.Linear):
        raise InputError(
            "the network has no single linear layer at its end (an ensemble, the two heads of a distilled DeiT, a "
            "convolution) that a new head could replace: take another source, or a target of its classes (new_head=no)"
        )
    head = submodule(model, layers.head) if layers.head else model
    if not isinstance(head, nn.Linear):
        raise InputError(f"the network's head {layers.head!r} is {type(head).__name__}, not a linear layer")
    return head.in_features


def _replace(model: nn.Module, layers: Layers, head: nn.Module) -> None:
    parent, _, name = layers.head.rpartition(".")
    setattr(submodule(model, parent) if parent else model, name, head)

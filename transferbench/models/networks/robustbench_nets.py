"""RobustBench's architectures, `robustbench:<data set>/<threat>/<id>`, with a head of their own or a new one."""

from __future__ import annotations

from torch import nn

from transferbench.base.errors import InputError
from transferbench.models.catalogue import robustbench
from transferbench.models.features import find_layers, submodule
from transferbench.models.loaders import robustbench_package
from transferbench.models.networks import Built

IDS = {"robustbench": "robustbench:<data set>/<threat>/<id>, the architecture of any model of RobustBench"}


def build(id: str, num_classes: int) -> Built:
    """InputError for an ensemble when it shall have other classes: it has no one head to replace."""
    dataset, _, rest = id.partition(":")[2].partition("/")
    threat, _, name = rest.partition("/")
    entry = robustbench.resolve(f"{robustbench.PREFIX}{name}@{dataset}/{threat}")
    model = robustbench_package.construct(entry)
    layers = find_layers(model, ensemble=entry.ensemble)
    card = robustbench.card(entry.name)
    assert card is not None
    if num_classes != len(card.classes):
        if not layers.head:
            raise InputError(f"network {id} has no single linear head: it cannot get {num_classes} classes")
        old = submodule(model, layers.head)
        assert isinstance(old, nn.Linear)
        parent, _, leaf = layers.head.rpartition(".")
        setattr(submodule(model, parent), leaf, nn.Linear(old.in_features, num_classes))
    return Built(model, layers, card.input_shape)

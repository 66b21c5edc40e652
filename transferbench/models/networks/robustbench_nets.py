"""RobustBench's architectures, `robustbench:<data set>/<threat>/<id>`, with their own head or a new one."""

from __future__ import annotations

from transferbench.base.errors import InputError
from transferbench.models import heads
from transferbench.models.catalogue import robustbench
from transferbench.models.features import find_layers
from transferbench.models.loaders import robustbench_package
from transferbench.models.networks import Built

IDS = {"robustbench": "robustbench:<data set>/<threat>/<id>, the architecture of any model of RobustBench"}


def build(id: str, num_classes: int) -> Built:
    """The architecture with random weights; for another number of classes with a new linear head.

    InputError for an ensemble with another number of classes: it has no single head to replace.
    """
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
        heads.linear(model, layers, num_classes)
    return Built(model, layers, card.input_shape)

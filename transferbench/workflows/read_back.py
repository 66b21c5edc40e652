"""Whether the network that a training will make can be read back from its card, found out before the training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.methods import BaseMethod, Network
from transferbench.models import heads, networks
from transferbench.models.victim import Victim
from transferbench.training.splits import Splits
from transferbench.training.victim import Recipe, keeps_head
from transferbench.training.victim import check as check_fit


def check(recipe: Recipe, method: BaseMethod[Any], source: Victim | None, splits: Splits) -> None:
    """InputError where method, source and data do not fit together, the method cannot make its network of the source,
    or what the card names has other tensors than it. `method` is used up."""
    train = splits[0]
    source, network = check_fit(recipe, method, source, train)
    classes = len(train.classes)
    method.keeps_head = keeps_head(method, source, train)
    given = None if source is None else Network(source.model, source.layers)
    with torch.random.fork_rng(devices=[]):
        student = method.student(given, lambda: Network(*networks.build(network, classes)[:2]), classes)
        method.strip(student)
        built = networks.build_for_weights(network, classes)
        if source is not None and not method.keeps_head:
            heads.as_new(built.model, built.layers, classes)
    strange = [name for name, entry in student.model.state_dict().items() if not isinstance(entry, Tensor)]
    if strange:
        raise InputError(f"{network}: its state {strange[0]} is no tensor, which a file of weights cannot hold")
    own, read = _tensors(student.model), _tensors(built.model)
    for name in sorted(own.keys() | read.keys()):
        if own.get(name) != read.get(name):
            raise InputError(
                f"what is trained could not be read back: {name} is {own.get(name, 'missing')} in the network, and "
                f"{read.get(name, 'missing')} in what {network} builds"
            )


def _tensors(model: nn.Module) -> dict[str, str]:
    """Shape and type of every tensor of the state, by its name."""
    entries = {name: entry for name, entry in model.state_dict().items() if isinstance(entry, Tensor)}
    return {name: f"{tuple(entry.shape)} {entry.dtype}" for name, entry in entries.items()}

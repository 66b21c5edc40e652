"""Averages of a network's parameters that stand beside the network in a file, and are not a whole network.

torch_ema keeps a list of tensors, many trainings of people a dictionary of the parameters alone, ema_pytorch a network
with other tensors beside it. Such an average is no network by itself, but may be what was evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from transferbench.models.weights import names
from transferbench.models.weights.entries import AVERAGE, Described, is_of_training
from transferbench.models.weights.pickles import Foreign, StoredTensor
from transferbench.models.weights.weights_file import WeightsFile

_MOST_VISITED = 100_000


def beside(file: WeightsFile, model: nn.Module, taken: Mapping[str, Tensor], place: str) -> list[str]:
    """Places of averages of the network whose state, under its own names, was `taken` from a place; not those that are
    equal to it. An object that was pickled whole is one, where its key says so: what is in it is not known."""
    parameters = {name: taken[name] for name in dict(model.named_parameters()) if name in taken}
    buffers = tuple(model.state_dict().keys() - dict(model.named_parameters()).keys())
    found = []
    for other, described in file.entries.items():
        matched = _matched(model, described, buffers) if other != place else []
        found += [other] if any(_differs(file, one, parameters) for one in matched) else []
    for other, value in _visited(file.content):
        if isinstance(value, Foreign):
            named = AVERAGE.search(other.rpartition("/")[2]) and not value.name.startswith("numpy.")
            found += [other] if named else []
        elif _differs(file, dict(zip(parameters, value, strict=False)), parameters) and len(value) == len(parameters):
            found.append(other)
    return found


def _matched(model: nn.Module, described: Described, buffers: tuple[str, ...]) -> list[dict[str, Any]]:
    """The described tensors of the network's parameters, by its own names, behind every prefix that has all of them;
    whatever else is there: ema_pytorch has a counter of steps beside its two networks."""
    bare, _ = names.unwrapped(model, described)
    found = [
        match
        for prefix in names.prefixes(model, bare, buffers)[1]
        for match in names.readings(model, described, prefix, constants=buffers)
    ]
    return [{own: described[name] for own, name in match.names.items()} for match in found]


def _differs(file: WeightsFile, described: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> bool:
    """Whether they are tensors of all parameters' shapes, with other numbers."""
    for name, tensor in parameters.items():
        if tuple(getattr(described.get(name), "shape", ("none",))) != tuple(tensor.shape):
            return False
    stored = {name: described[name] for name in parameters}
    if file.torch_file is not None:
        if not all(isinstance(tensor, StoredTensor) for tensor in stored.values()):
            return False
        stored = dict(file.torch_file.tensors(stored))
    return bool(stored) and not all(torch.equal(stored[name], tensor) for name, tensor in parameters.items())


def _visited(content: Any) -> Iterator[tuple[str, Any]]:
    """(place, value) of the lists of tensors and the pickled objects of a file, without those of its optimiser."""
    waiting: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_VISITED:
        place, value = waiting.pop()
        if isinstance(value, Foreign):
            yield place, value
        if id(value) in seen or not isinstance(value, dict | list | tuple):
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            kept = ((key, one) for key, one in value.items() if isinstance(key, str) and not is_of_training(key))
            waiting += [("/".join(filter(None, (place, key))), one) for key, one in kept]
        elif value and all(isinstance(one, StoredTensor) for one in value):
            yield place, value

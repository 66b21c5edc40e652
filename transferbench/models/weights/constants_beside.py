"""Constants of a normalisation that stand beside the weights in a file: `mean` and `std`, lists or tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor, tensor

from transferbench.models.weights.entries import is_of_training
from transferbench.models.weights.names import CONSTANTS
from transferbench.models.weights.pickles import StoredTensor
from transferbench.models.weights.weights_file import WeightsFile, reading

_DEPTH, _MOST_CHANNELS = 3, 4


def beside(file: WeightsFile) -> list[tuple[str, Tensor, Tensor]]:
    """(place, mean, deviation) of all dictionaries in the file that have both, float [1] to [4]. A network's own
    constants, which are among its tensors' names, are not meant."""
    found: list[tuple[str, Tensor, Tensor]] = []

    def visit(value: Any, place: str, depth: int) -> None:
        if not isinstance(value, dict) or depth > _DEPTH:
            return
        for mean, std in CONSTANTS:
            pair = _values(file, value.get(mean)), _values(file, value.get(std))
            if pair[0] is not None and pair[1] is not None and len(pair[0]) == len(pair[1]):
                found.append((f"{place}{mean}", pair[0], pair[1]))
        for key, element in value.items():
            if isinstance(key, str) and not is_of_training(key):
                visit(element, f"{place}{key}/", depth + 1)

    # Where the whole file is one network, its names are all that there is.
    if "" not in file.entries:
        with reading(file.path):
            visit(file.content, "", 0)
    return found


def _values(file: WeightsFile, value: Any) -> Tensor | None:
    """The numbers of a list or tensor of as many as images have channels; None for anything else."""
    if isinstance(value, StoredTensor):
        count = 1
        for size in value.shape:
            count *= size
        if not 1 <= count <= _MOST_CHANNELS or file.torch_file is None:
            return None
        return file.torch_file.tensors({"": value})[""].float().flatten()
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST_CHANNELS:
        return None
    return tensor([float(one) for one in value]) if all(type(one) in (int, float) for one in value) else None

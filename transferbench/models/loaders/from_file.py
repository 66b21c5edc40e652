"""A file of weights for an architecture of `list networks`: `file:<path>` and --network, or `file:<network>=<path>`.

`#<entry>` behind the path names one of several state dicts (`w.pth#state_dict_ema`), or what ends with a dot the prefix
that the network's names are behind (`w.ckpt#teacher.`).
"""

from __future__ import annotations

import os
from pathlib import Path

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.models import networks, outputs, weights
from transferbench.models.cards import ModelCard
from transferbench.models.networks import Built
from transferbench.models.victim import Victim

IDS = {"file": "file:<path> with --network NAME, your own weights for an architecture of `list networks`"}

_MOST_CLASSES = 1_000_000
_SOME = 10
"""Classes of the network that is built to find the file's names."""


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The network with the file's weights; the head's rows are its classes, named 0, 1, ...

    InputError when the architecture is not named or does not match the file.
    """
    network, path, entry = _parts(id)
    registry.find_family("networks", network)
    file = weights.open_file(path)
    built = networks.build(network, _SOME)
    count = _number_of_classes(network, built, weights.select(file, built.model, entry).state, path)
    classes, named = weights.class_names(file.content, count)
    card = ModelCard(
        id=f"file:{file_stem(path.stem)}"[:80],
        network=network,
        dataset="unknown",
        classes=classes,
        input_shape=built.input_shape,
        method="unknown",
        weights=path.name,
        weights_notes=tuple(filter(None, (networks.unstated(network), named))),
        text=f"# {weights.shown(path.name)}\n\nWeights given as a file for `{network}`.",
    )
    return Victim.from_file(card, file, entry)


def _parts(id: str) -> tuple[str, Path, str | None]:
    """(network, path, entry) of an id. InputError where no network is named."""
    network, equals, name = id.partition(":")[2].partition("=")
    if not equals or not network or not name or "/" in network.partition(":")[0]:
        raise InputError(
            f"model {id}: name the architecture with --network (see: transferbench list networks, or transferbench "
            "inspect <path>)"
        )
    path, hash, entry = name.rpartition("#")
    # A file may have the sign in its name.
    if not hash or not path or not entry or os.path.exists(name):
        return network, Path(name), None
    return network, Path(path), entry


def _number_of_classes(network: str, built: Built, state: weights.StateDict, path: Path) -> int:
    """The number of classes of weights: of rows of the head, or where there is no single one of the first parameter
    that has as many. InputError where it is none of a classifier."""
    name, dimension = f"{built.layers.head}.weight", 0
    if not built.layers.head:
        own, other = (built.model.state_dict(), networks.build_without_weights(network, _SOME + 1).model.state_dict())
        places = [
            (name, at)
            for name, tensor in own.items()
            for at, (size, others) in enumerate(zip(tensor.shape, other[name].shape, strict=True))
            if size != others
        ]
        if not places:
            raise InputError(f"network {network}: its classes cannot be counted: it has {_SOME}, whatever is asked for")
        name, dimension = places[0]
    tensor = state[name]
    count = tensor.shape[dimension] if tensor.ndim > dimension else 0
    if (tensor.ndim != 2 and built.layers.head) or not 2 <= count <= _MOST_CLASSES:
        raise InputError(
            f"weights {weights.shown(path)}: the head has the shape {tuple(tensor.shape)}: a classifier has one row "
            f"for each of at least 2 classes{outputs.ONE_LOGIT if count == 1 else ''}"
        )
    return count

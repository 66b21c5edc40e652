"""A file of weights for an architecture of `list networks`: `file:<path>` and --network, or `file:<network>=<path>`.

`#<entry>` behind the path names one of several state dicts (`w.pth#state_dict_ema`), or what ends with a dot the prefix
that the network's names are behind (`w.ckpt#teacher.`).
"""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.models import networks, weights
from transferbench.models.cards import ModelCard
from transferbench.models.victim import Victim

IDS = {"file": "file:<path> with --network NAME, your own weights for an architecture of `list networks`"}

_MOST_CLASSES = 1_000_000


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The network with the file's weights; the head's rows are its classes, named 0, 1, ...

    InputError when the architecture is not named or does not match the file.
    """
    network, path, entry = _parts(id)
    registry.find_family("networks", network)
    file = weights.open_file(path)
    built = networks.build(network, 10)
    if not built.layers.head:
        raise InputError(f"model {id}: network {network} has no single linear head to read the classes from")
    selection = weights.select(file, built.model, entry)
    unstated = networks.unstated(network)
    card = ModelCard(
        id=f"file:{file_stem(path.stem)}"[:80],
        network=network,
        dataset="unknown",
        classes=tuple(map(str, range(_rows(selection.state[f"{built.layers.head}.weight"], path)))),
        input_shape=built.input_shape,
        method="unknown",
        weights=path.name,
        weights_notes=(unstated,) if unstated else (),
        text=f"# {weights.shown(path.name)}\n\nWeights given as a file for `{network}`.",
    )
    return Victim.from_file(card, file, entry)


def _parts(id: str) -> tuple[str, Path, str | None]:
    """(network, path, entry) of an id. InputError where no network is named."""
    network, equals, name = id.partition(":")[2].partition("=")
    if not equals or not network or not name or "/" in network.partition(":")[0]:
        raise InputError(f"model {id}: name the architecture with --network (see: transferbench list networks)")
    path, hash, entry = name.rpartition("#")
    # A file may have the sign in its name.
    if not hash or not path or not entry or os.path.exists(name):
        return network, Path(name), None
    return network, Path(path), entry


def _rows(head: Tensor, path: Path) -> int:
    """The number of classes, by the head's weight [classes, width]. InputError where it is no head of a classifier."""
    if head.ndim != 2 or not 2 <= len(head) <= _MOST_CLASSES:
        raise InputError(
            f"weights {weights.shown(path)}: the head has the shape {tuple(head.shape)}: a classifier has one row for "
            "each of at least 2 classes"
        )
    return len(head)

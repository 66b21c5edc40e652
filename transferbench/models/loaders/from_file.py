"""A file of weights for an architecture of `list networks`: `file:<path>` and --network, or `file:<network>=<path>`."""

from __future__ import annotations

from pathlib import Path

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models import networks, weights
from transferbench.models.cards import ModelCard
from transferbench.models.victim import Victim

IDS = {"file": "file:<path> with --network NAME, your own weights for an architecture of `list networks`"}


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The network with the file's weights; the head's rows are its classes, named 0, 1, ...

    InputError when the architecture is not named or does not match the file.
    """
    network, equals, name = id.partition(":")[2].partition("=")
    if not equals or not network or not name:
        raise InputError(f"model {id}: name the architecture with --network (see: transferbench list networks)")
    path = Path(name)
    state = weights.read(path)
    layers, input_shape = networks.build(network, 10)[1:]
    if not layers.head:
        raise InputError(f"model {id}: network {network} has no single linear head to read the classes from")
    head = f"{layers.head}.weight"
    rows = [len(state[key]) for key in (head, f"module.{head}", head.removeprefix("model.")) if key in state]
    if not rows:
        raise InputError(f"weights {path}: no {head} inside: these are not the weights of {network}")
    card = ModelCard(
        id=f"file:{path.stem}"[:80],
        network=network,
        dataset="unknown",
        classes=tuple(map(str, range(rows[0]))),
        input_shape=input_shape,
        method="unknown",
        weights=path.name,
        text=f"# {path.name}\n\nWeights given as a file for `{network}`.",
    )
    return Victim.from_state(card, state, path, sha256_of(path), match_prefixes=True)

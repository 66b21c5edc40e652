"""A file of weights for a known architecture: `file:<path>` with --network, or in full `file:<network>=<path>`."""

from __future__ import annotations

from pathlib import Path

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models import networks, weights
from transferbench.models.cards import ModelCard
from transferbench.models.victim import Victim

IDS = {"file": "file:<path> with --network NAME, your own weights for an architecture of `list networks`"}


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The number of classes is the head's. InputError when the network is not named or the names do not fit."""
    network, equals, name = id.partition(":")[2].partition("=")
    if not equals or not network or not name:
        raise InputError(f"model {id}: name the architecture with --network (see: transferbench list networks)")
    path = Path(name)
    state = weights.read(path)
    first = networks.build(network, 10)
    if not first.layers.head:
        raise InputError(f"model {id}: network {network} has no single linear head to read the classes from")
    head = f"{first.layers.head}.weight"
    rows = [len(state[key]) for key in (head, f"module.{head}", head.removeprefix("model.")) if key in state]
    if not rows:
        raise InputError(f"weights {path}: no {head} inside: these are not the weights of {network}")
    built = first if rows[0] == 10 else networks.build(network, rows[0])
    weights.load_strictly(built.model, weights.match_names(built.model, state), path)
    digest = sha256_of(path)
    card = ModelCard(
        id=f"file:{path.stem}"[:80],
        network=network,
        dataset="unknown",
        classes=tuple(map(str, range(rows[0]))),
        input_shape=built.input_shape,
        method="unknown",
        weights=path.name,
        sha256=digest,
        text=f"# {path.name}\n\nWeights given as a file for `{network}`.",
    )
    return Victim(card, built.model.eval().requires_grad_(False), built.layers, digest)

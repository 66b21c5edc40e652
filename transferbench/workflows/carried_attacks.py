"""Which attacks a source can carry: those that find in it the layers that they look at, and images to be made on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transferbench import attacks, data
from transferbench.base.errors import InputError
from transferbench.data import Dataset, View
from transferbench.engine.source_model import SourceModel
from transferbench.jobs.evaluation import CLASSES
from transferbench.models.victim import Victim
from transferbench.suites import Attack, SourceOnly


def require_images(images: str, source: Victim, test: Dataset, data_dir: Path | None) -> None:
    """InputError where an attacker of `test` cannot have these images (attacks/universal_attack.AttackerImages):
    nothing says what the source was trained on, there are no training images, or they have another shape."""
    id = {"target": test.id, "source": source.card.dataset}.get(images)
    if id is None:
        return
    if id == "unknown":
        raise InputError(f"nothing says what {source.id} was trained on, whose images images=source are")
    train = data.load(id, "train", data_dir, View.parse(test.preprocessing))
    if train.shape != test.shape:
        raise InputError(f"the images of {id} are of shape {train.shape}, those attacked of {test.shape}")


def carried(
    network: SourceModel,
    id: str,
    source_only: Sequence[SourceOnly],
    every: bool,
    require: Callable[[str], None] = lambda _: None,
) -> tuple[list[SourceOnly], list[str]]:
    """The measurements that the source can carry, and a line about each attack that was left out.

    `id` names the source. `require` raises InputError for the attacker's images that cannot be had. InputError, naming
    attack and network, for an attack that cannot be made, unless `every` attack was asked for, which stands for all
    that can.
    """
    kept, notes = list[SourceOnly](), list[str]()
    for protocol in source_only:
        attacking, asking = list[Attack](), list[Attack]()
        for part in (protocol.attack, *protocol.also, *protocol.queries):
            attack = attacks.build(part.spec(), protocol.threat, CLASSES)
            try:
                network.layers(*attack.reads)
                if attack.scope == "universal":
                    require(attack.images)
            except InputError as error:
                if not every:
                    raise InputError(
                        f"attack {part.id} with {id}: {error}; name others, --attacks-source source-pgd "
                        "(attacks_source=), or all that it can carry, all"
                    ) from None
                notes.append(f"left out: {part.id} ({error})")
                continue
            (asking if attack.scope == "query" else attacking).append(part)
        if not attacking:
            raise InputError(f"{id} carries no attack that holds it alone: {notes[0]}")
        parts = {"attack": attacking[0], "also": tuple(attacking[1:]), "queries": tuple(asking)}
        kept.append(protocol.model_copy(update={**parts, "start": _start(protocol, attacking, asking)}))
    return kept, notes


def _start(protocol: SourceOnly, attacking: Sequence[Attack], asking: Sequence[Attack]) -> str:
    """The attack at whose points query attacks begin: the protocol's, else the first that makes points of images.
    InputError where one needs such points and nothing makes them."""

    def built(part: Attack) -> Any:
        return attacks.build(part.spec(), protocol.threat, CLASSES)

    ids = [part.id for part in attacking if built(part).scope == "image"]
    if not ids:
        for part in asking:
            if built(part).begins == "crafted":
                raise InputError(
                    f"attack {part.id} begins at crafted points: name an attack that makes them, source-pgd"
                )
        return attacking[0].id
    return protocol.start if protocol.start in ids else ids[0]

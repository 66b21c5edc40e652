"""Which attacks a source can carry: those that find in it the layers that they look at."""

from __future__ import annotations

from collections.abc import Sequence

from transferbench import attacks
from transferbench.base.errors import InputError
from transferbench.engine.source_model import SourceModel
from transferbench.jobs.evaluation import CLASSES
from transferbench.models.victim import Victim
from transferbench.suites import Attack, SourceOnly


def carried(source: Victim, source_only: Sequence[SourceOnly], every: bool) -> tuple[list[SourceOnly], list[str]]:
    """The measurements that the source can carry, and a line about each attack that was left out.

    InputError, naming attack and network, for an attack that it cannot carry, unless `every` attack was asked for,
    which stands for all that it can.
    """
    network, kept, notes = SourceModel(source.model, source.layers), [], []
    for protocol in source_only:
        attacking, asking = list[Attack](), list[Attack]()
        for part in (protocol.attack, *protocol.also, *protocol.queries):
            attack = attacks.build(part.spec(), protocol.threat, CLASSES)
            try:
                network.layers(*attack.reads)
            except InputError as error:
                if not every:
                    raise InputError(
                        f"attack {part.id} with {source.id}: {error}; name others, --attacks-source source-pgd, or all "
                        "that it can carry, --attacks-source all"
                    ) from None
                notes.append(f"left out: {part.id} ({error})")
                continue
            (asking if attack.scope == "query" else attacking).append(part)
        if not attacking:
            raise InputError(f"{source.id} carries no attack that holds it alone: {notes[0]}")
        ids = [part.id for part in attacking]
        parts = {"attack": attacking[0], "also": tuple(attacking[1:]), "queries": tuple(asking)}
        start = protocol.start if protocol.start in ids else ids[0]
        kept.append(protocol.model_copy(update={**parts, "start": start}))
    return kept, notes

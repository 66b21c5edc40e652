"""Whether an evaluation would replace a record of something else in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.specifications import Chain
from transferbench.data import Dataset
from transferbench.models.loaders.from_python import UNREPEATABLE
from transferbench.models.victim import Victim
from transferbench.results.records import Record, read_all
from transferbench.suites import SourceOnly


@dataclass(frozen=True)
class NewRecord:
    """What an evaluation is about to measure: `source` is the id of the network that its source-only attacks hold,
    empty without one, `corruptions` are the threats of corruptions."""

    victim: Victim
    examples: Dataset
    chains: Sequence[Chain]
    source: str
    source_only: Sequence[SourceOnly]
    seed: int
    backend: str
    precision: str
    corruptions: Sequence[str] = ()


def check(root: Path, new: NewRecord) -> None:
    """InputError where the record that the victim's id has in the folder is of other weights, data, radii, attacks or
    engine, of another source or seed, or has examples, chains, source-only attacks or corruptions that are left out
    now. More of them replace it."""
    if not (root / "records").is_dir():
        return
    victim = new.victim
    stem = file_stem(victim.id)
    for record in read_all(root):
        other = file_stem(record.victim)
        if other.casefold() != stem.casefold():
            continue
        what = _difference(record, new) or _other_crafted(record, new)
        left_out = [one.threat for one in record.corruptions if one.threat not in new.corruptions]
        if not what and left_out:
            what = f"{left_out[0]}, which are left out now (--norms)"
        if other != stem or record.victim != victim.id:
            what = f"the file of {record.victim}"
        if what:
            raise InputError(
                f"--out {root}: the record of {victim.id} that is there has {what}: give another folder for this one "
                "(--out)"
            )


def _other_crafted(record: Record, new: NewRecord) -> str:
    parts = [(one, part) for one in new.source_only for part in one.parts]
    wanted = {(one.norm, part.id): (one.eps.text, part.spec().as_dict()) for one, part in parts}
    for crafted in record.crafted:
        if "of" in crafted.attack:
            # Made of another set, which is looked at itself.
            continue
        id = crafted.attack["id"]
        now = wanted.get((crafted.norm, id))
        if now is None:
            return f"attacks that hold {crafted.source} alone ({id} in {crafted.norm}), which are left out now"
        if crafted.source != new.source:
            return f"another source ({crafted.source}, not {new.source})"
        if now != (crafted.eps, crafted.attack):
            return f"another radius or other parameters of {id} in {crafted.norm}"
    return ""


def _difference(record: Record, new: NewRecord) -> str:
    victim, examples, seed = new.victim, new.examples, new.seed
    unrepeatable = victim.sha256.startswith(UNREPEATABLE) or record.weights_sha256.startswith(UNREPEATABLE)
    now = {chain.name: chain for chain in new.chains}
    if not unrepeatable and record.weights_sha256 != victim.sha256:
        return f"other weights ({record.weights_sha256[:12]}..., not {victim.sha256[:12]}...)"
    if record.network != victim.card.network:
        return f"another network ({record.network}, not {victim.card.network})"
    if record.target_dataset != examples.id:
        return f"other data ({record.target_dataset}, not {examples.id})"
    if record.n > len(examples):
        return f"more examples ({record.n}, not {len(examples)})"
    if record.n == len(examples) and record.data_fingerprint != examples.fingerprint:
        return "other images"
    if record.seed != seed:
        return f"another seed ({record.seed}, not {seed})"
    for chain in record.chains:
        wanted = now.get(chain.name)
        if wanted is None:
            return f"a chain that is left out now ({chain.name} {chain.eps})"
        if chain.eps != wanted.threat.eps.text:
            return f"another radius ({chain.norm} {chain.eps}, not {wanted.threat.eps.text})"
        if chain.attacks != [attack.as_dict() for attack in wanted.attacks]:
            return f"other attacks in {chain.name}"
        if (chain.precision or "fp32") != new.precision:
            return f"another precision in {chain.name} (--precision {chain.precision or 'fp32'})"
        if (chain.backend or "transferbench") != new.backend:
            return f"another engine in {chain.name} (--backend {chain.backend or 'transferbench'})"
    return ""

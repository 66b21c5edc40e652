"""Assembles the parts of a record from the results of jobs: shards in order, verdicts as bits, costs summed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal

from transferbench.base.errors import FaultError
from transferbench.base.results import (
    AttackResult,
    AttackTally,
    Cost,
    DrawCounts,
    FileVerdicts,
    JudgeResult,
    QueryResult,
    Verdict,
)
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel, parse_norm
from transferbench.results.records import Bits, ChainRecord, CraftedRecord, DrawsRecord, FileRecord, QueriedRecord


def _verdicts(shards: Sequence[AttackResult]) -> list[Verdict]:
    return [verdict for shard in shards for verdict in shard.verdicts]


def clean_bits(shards: Sequence[AttackResult]) -> Bits:
    """The examples that are classified correctly without an attack, from the verdicts of one chain."""
    return Bits.of([verdict.attack != "clean" for verdict in _verdicts(shards)])


def summed(shards: Sequence[AttackResult]) -> list[AttackTally]:
    """The attacks of a chain, summed over its shards. A shard without a clean-correct example has none."""
    tallies = [shard.by_attack for shard in shards if shard.by_attack]
    return [reduce(AttackTally.plus, parts) for parts in zip(*tallies, strict=True)]


def chain_record(
    chain: Chain, shards: Sequence[AttackResult], clean: Bits, backend: Literal["", "autoattack"] = ""
) -> ChainRecord:
    """The record of one chain over its shards. FaultError when the verdicts are not of exactly the n distinct examples
    of `clean`, which says of those that the chain attacked which are right without an attack.

    A victim whose noise cannot be seeded may be right on other clean images in every chain: an example is robust where
    it is right in `clean` as well.
    """
    n = clean.n
    verdicts = _verdicts(shards)
    again = [shard.searched_again for shard in shards if shard.searched_again is not None]
    distinct = len({verdict.example for verdict in verdicts})
    if len(verdicts) != n or distinct != n:
        raise FaultError(f"chain {chain.name}: {distinct} distinct verdicts where {n} were asked for")
    return ChainRecord(
        name=chain.name,
        norm=parse_norm(chain.threat.norm),
        eps=chain.threat.eps.text,
        attacks=[spec.as_dict() for spec in chain.attacks],
        robust=Bits.of([ok and not verdict.fooled for ok, verdict in zip(clean.list(), verdicts, strict=True)]),
        by_attack=[_attack_record(part) for part in summed(shards)],
        ties=sum(verdict.tie for verdict in verdicts),
        jobs=[shard.key for shard in shards],
        forwards=sum(shard.cost.forwards for shard in shards),
        backwards=sum(shard.cost.backwards for shard in shards),
        backend=backend,
        precision="bf16" if again else "",
        searched_again=sum(again) if again else None,
        draws=next((draws_record(shard.draws) for shard in shards if shard.draws is not None), None),
        files=file_records([shard.files for shard in shards], clean),
    )


def file_records(shards: Sequence[Sequence[FileVerdicts]], clean: Bits) -> list[FileRecord]:
    """What fooling points do as image files, over the shards; none where a shard does not say. An example counts where
    `clean` has it right, as it does in verdicts."""
    right = clean.list()

    def bits(of_shards: Sequence[bool]) -> Bits:
        return Bits.of([bit and ok for bit, ok in zip(of_shards, right, strict=True)])

    if not all(shards):
        return []
    wholes = [reduce(FileVerdicts.plus, parts) for parts in zip(*shards, strict=True)]
    return [FileRecord(format=one.format, fooling=bits(one.fooling), control=bits(one.control)) for one in wholes]


def draws_record(counts: DrawCounts) -> DrawsRecord:
    """How a randomised victim was judged, as a record has it."""
    return DrawsRecord(eot=list(counts.eot), draws=counts.draws, robust=list(counts.robust), single=counts.single)


def _attack_record(part: AttackTally) -> dict[str, Any]:
    """One attack in a record: all counts but `wasted`, which depends on the batch size."""
    names = ("attack", "tries", "broke", "standing", "forwards", "backwards")
    return {name: getattr(part, name) for name in names}


def crafted_record(
    source: str,
    threat: ThreatModel,
    attack: AttackSpec,
    shards: Sequence[JudgeResult],
    clean: Bits,
    attacker_images: str = "",
) -> CraftedRecord:
    """The record of a crafted set over its shards: the flips of every try.

    A victim whose answers depend on its batch may be right on an image in the shard's batch and not in the chain's,
    which `clean` is of: a flip counts where it is right in both.
    """
    right = clean.list()
    tries = zip(*(shard.flips for shard in shards), strict=True)
    return CraftedRecord(
        source=source,
        norm=threat.norm,
        eps=threat.eps.text,
        attack=attack.as_dict(),
        flips=[
            Bits.of(
                [flip and ok for flip, ok in zip((flip for shard in attempt for flip in shard), right, strict=True)]
            )
            for attempt in tries
        ],
        jobs=[shard.key for shard in shards],
        attacker_images=attacker_images,
        files=file_records([shard.files for shard in shards], clean),
    )


def queried_record(
    source: str,
    threat: ThreatModel,
    attack: AttackSpec,
    is_control: bool,
    start: str,
    shards: Sequence[QueryResult],
    clean: Bits,
) -> QueriedRecord:
    """The record of a query attack, or its control, over its shards; an example counts where `clean` has it right."""
    numbers = [number for shard in shards for number in shard.queries]
    return QueriedRecord(
        source=source,
        norm=threat.norm,
        eps=threat.eps.text,
        attack=attack.as_dict(),
        is_control=is_control,
        budget=shards[0].budget,
        queries=[number if right else 0 for number, right in zip(numbers, clean.list(), strict=True)],
        start=start,
        jobs=[shard.key for shard in shards],
    )


def total_cost(costs: Sequence[Cost]) -> Cost:
    """The sum of all passes and seconds."""
    total = Cost()
    for cost in costs:
        total.add(cost)
    return total

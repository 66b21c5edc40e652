"""The jobs of attacks that hold the source alone: crafted once per source, judged per victim, each with controls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from transferbench import attacks
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.engine import controls
from transferbench.jobs.control import ControlJob
from transferbench.jobs.craft import CraftJob
from transferbench.jobs.evaluation import CLASSES
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.judge import JudgeJob
from transferbench.jobs.networks import NetworkReference
from transferbench.jobs.query import QueryJob
from transferbench.jobs.universal import UniversalJob
from transferbench.suites import SourceOnly

Craft = CraftJob | UniversalJob | ControlJob


class CraftedShard(NamedTuple):
    """One shard of a crafted set and its judging on one victim; `source` is the id of the network it was made with."""

    source: str
    craft: Craft
    judge: JudgeJob


class AttackersSource(NamedTuple):
    """The public network that an attacker holds; `dataset`: what it was trained on, empty where nothing says so."""

    network: NetworkReference
    dataset: str = ""


def source_only_shards(
    victim: NetworkReference,
    source: AttackersSource,
    protocol: SourceOnly,
    shards: list[ImagesInput],
    seed: int,
    is_own: bool = True,
) -> Iterator[CraftedShard]:
    """The source-only attacks of a protocol and their controls, on a victim's images.

    Random signs are the same whichever network they are named after: they, and the other controls, belong to the
    victim's own source.
    """
    parts = (protocol.attack, *protocol.also, *((protocol.control,) if is_own else ()))
    for part in parts:
        spec = part.spec()
        named = spec.id if protocol.norm == "Linf" else f"{spec.id}@{protocol.norm}"
        label = f"{victim.id}: {named}" if is_own else f"{victim.id}: {named} of {source.network.id}"
        for shard in shards:
            made = _made(source, spec, protocol.threat, shard, seed, named)
            yield CraftedShard(source.network.id, made, JudgeJob(label, victim, shard, made))
        if part is protocol.control or not is_own:
            continue
        for change in _controls(made, shards):
            for shard in shards:
                made = _made(source, spec, protocol.threat, shard, seed, named)
                control = ControlJob(f"{source.network.id}: {named}, {change}", change, made)
                judge = JudgeJob(f"{label}, {change}", victim, shard, control)
                yield CraftedShard(source.network.id, control, judge)


def _controls(made: Craft, shards: list[ImagesInput]) -> tuple[controls.Change, ...]:
    """The controls that can be made of a set: one of another image needs two images in every shard."""
    if isinstance(made, UniversalJob):
        return controls.OF_DELTAS
    alone = any(shard.stop is not None and shard.stop - shard.start == 1 for shard in shards)
    return tuple(change for change in controls.OF_POINTS if not (alone and change == "other-image"))


class QueriedShard(NamedTuple):
    """A query attack, or its control, on one shard; `source` is the id of the network that the attacker holds."""

    source: str
    is_control: bool
    job: QueryJob


def queried_shards(
    victim: NetworkReference, source: AttackersSource, protocol: SourceOnly, shards: list[ImagesInput], seed: int
) -> Iterator[QueriedShard]:
    """The query attacks of a protocol on a victim's images, each followed by its control."""
    for part in protocol.queries:
        spec = part.spec()
        name, value = attacks.build(spec, protocol.threat, CLASSES).control
        control = AttackSpec.of(spec.id, **{**dict(spec.params), name: value})
        for one in (spec, control):
            begins = attacks.build(one, protocol.threat, CLASSES).begins
            label = f"{victim.id}: {one.id}" if one is spec else f"{victim.id}: {one.id}, {name}={value}"
            for shard in shards:
                start = None
                if begins == "crafted":
                    made = _made(source, protocol.starting.spec(), protocol.threat, shard, seed, protocol.starting.id)
                    assert isinstance(made, CraftJob)
                    start = made
                job = QueryJob(label, victim, shard, source.network, one, protocol.threat, seed, start)
                yield QueriedShard(source.network.id, one is control, job)


def _made(
    source: AttackersSource, spec: AttackSpec, threat: ThreatModel, shard: ImagesInput, seed: int, named: str
) -> CraftJob | UniversalJob:
    attack, label = attacks.build(spec, threat, CLASSES), f"{source.network.id}: {named}"
    if attack.scope == "image":
        return CraftJob(label, source.network, shard, spec, threat, seed)
    of = {"target": shard.dataset, "source": source.dataset}.get(attack.images, "")
    return UniversalJob(label, source.network, shard.dataset, shard.preprocessing, of, spec, threat, seed)

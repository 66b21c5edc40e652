"""A suite -> the smallest suite that still uses every method, network, source and data set of it once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from transferbench.attacks import build
from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, Scalar, ThreatModel
from transferbench.suites import Attack, Protocol, Source, SourceOnly, Suite, SuiteRow, Training

N = 4
"""Attacked examples."""
_CLASSES = 10
"""Attacks are built for so many classes where only their kind is asked for."""
_ATTACKS: dict[str, Scalar] = {
    "n_iter": 2,
    "k": 2,
    "restarts": 1,
    "targets": 1,
    "neurons": 1,
    "draws": 1,
    "steps": 2,
    "batch": 2,
    "copies": 2,
    "rounds": 2,
    "queries": 4,
}
_TRAININGS: dict[str, Scalar] = {
    "steps": 2,
    "batch_size": 4,
    "at_iter": 2,
    "k": 2,
    "m": 2,
    "teacher_steps": 1,
    "teacher_batch_size": 4,
    "match_share": 0.5,
    "disc_update_steps": 1,
    "swa_snapshots": 1,
    "attention_steps": 2,
    "attention_batches": 1,
}
_LENGTHS = ("swa_steps", "swa_freq", "swa_start", "warm_steps", "probe_steps")
"""What is left to its default, because it counts steps of the whole training."""
_STEPS = {"lwf": 4, "renofeation": 8}
"""Where a method's phases take shares of the steps, so many that each has two."""


def shorten(suite: Suite) -> Suite:
    """The suite under the name `<suite>-smoke`, marked untrained, with the first seed alone."""
    return suite.model_copy(
        update={
            "name": f"{suite.name}-smoke",
            "untrained": True,
            "n": N,
            "n_chains": None if suite.n_chains is None else N // 2,
            "seeds": suite.seeds[:1],
            "protocol": _protocol(suite.protocol, suite),
            "full": None,
            "training": _chosen(suite.training),
        }
    )


def _chosen(blocks: Iterable[Training]) -> tuple[Training, ...]:
    """Rows that cover every method, network, source and data set, the widest first; what none of them uses goes."""
    pairs = [(block, row, source, _uses(block, row, source)) for block in blocks for row, source, _ in block.pairs()]
    wanted = {use for *_, uses in pairs for use in uses}
    taken: list[tuple[Training, SuiteRow, Source, set[tuple[str, str]]]] = []
    while wanted:
        block, row, source, uses = max(pairs, key=lambda pair: len(pair[3] & wanted))
        wanted -= uses
        taken.append((block, row, source, uses))
    for one in list(taken):
        # What was taken early may be covered by what came later.
        if one[3] <= {use for other in taken if other is not one for use in other[3]}:
            taken.remove(one)
    found: list[Training] = []
    for block in blocks:
        mine = [(row, source) for of, row, source, _ in taken if of is block]
        if mine:
            used = {source.name for _, source in mine}
            rows = [
                row.model_copy(
                    update={
                        "name": row.name if row.source else f"{row.name}-{source.name}",
                        "source": source.name,
                        "set": _settings(row.method, row.set),
                    }
                )
                for row, source in mine
            ]
            sources = [
                source.model_copy(update={"set": _settings(source.method, source.set)} if source.method else {})
                for source in block.sources
                if source.name in used
            ]
            less = {
                "sources": tuple(sources),
                "rows": tuple(rows),
                "shots": None,
                "shots_rule": "keyed",
                "attack_sources": len(used) == 1 and not found,
            }
            found.append(block.model_copy(update=less))
    return tuple(found)


def _uses(block: Training, row: SuiteRow, source: Source) -> set[tuple[str, str]]:
    networks = {row.network, source.network or block.network} - {None}
    data = {block.source_dataset, block.target_dataset} - {None}
    methods = {row.method, source.method} - {None}
    return {
        *(("network", str(id)) for id in networks),
        *(("data", str(id)) for id in data),
        *(("method", str(id)) for id in methods),
        ("source", source.model or f"{block.name}:{source.name}"),
    }


def _settings(method: str, given: dict[str, Scalar]) -> dict[str, Scalar]:
    known = {item.name for item in fields(registry.find("methods", method).load().Params)}
    short = {name: value for name, value in _TRAININGS.items() if name in known}
    given = {name: value for name, value in given.items() if name not in _LENGTHS}
    return {**given, **short, "steps": _STEPS.get(method, 2)}


def _protocol(protocol: Protocol, suite: Suite) -> Protocol:
    threats = {norm: ThreatModel(norm, eps) for norm, eps in suite.threats.items()}
    return protocol.model_copy(
        update={
            "description": f"smoke: 2 iterations on {N} examples",
            "chains": {
                norm: _shortened(attacks, threats[norm]) for norm, attacks in protocol.chains.items() if norm in threats
            },
            "further": tuple(
                chain.model_copy(update={"attacks": _shortened(chain.attacks, threats[chain.norm])})
                for chain in protocol.further
                if chain.norm in threats
            ),
            "curve": {},
            "source_only": tuple(_source_only(one) for one in protocol.source_only),
        }
    )


def _source_only(protocol: SourceOnly) -> SourceOnly:
    """One attack of each kind: what they need of a source and of the images is alike."""
    attack, control = _shortened((protocol.attack, protocol.control), protocol.threat)
    scope_of = {one.id: build(one.spec(), protocol.threat, _CLASSES).scope for one in protocol.also}
    first = {scope: next(one for one in protocol.also if scope_of[one.id] == scope) for scope in scope_of.values()}
    also, queries = (_shortened(some, protocol.threat) for some in (first.values(), protocol.queries[:1]))
    start = protocol.start if protocol.start in [one.id for one in first.values()] else ""
    parts = {"attack": attack, "control": control, "also": also, "queries": queries, "start": start}
    return protocol.model_copy(update={**parts, "every_source": False})


def _shortened(attacks: Iterable[Attack], threat: ThreatModel) -> tuple[Attack, ...]:
    return tuple(_attack(one, threat) for one in attacks)


def _attack(attack: Attack, threat: ThreatModel) -> Attack:
    """The attack with its budgets lowered. Which parameters an attack has is only known when it is built."""
    params = dict(attack.spec().params)
    for name, value in _ATTACKS.items():
        try:
            build(AttackSpec.of(attack.id, **{**params, name: value}), threat, 10)
        except InputError:
            continue
        params[name] = value
    return Attack(id=attack.id, **params)

"""Job results -> the parts of a record: shards joined in order, verdicts as bits, costs added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transferbench.base.errors import FaultError
from transferbench.base.results import Cost
from transferbench.base.specifications import Chain, Norm, parse_norm
from transferbench.results.records import Bits, ChainRecord, CraftedRecord

Result = dict[str, Any]


def _column(shards: Sequence[Result], name: str) -> list[Any]:
    return [value for shard in shards for value in shard["verdicts"][name]]


def clean_bits(shards: Sequence[Result]) -> Bits:
    """Which examples were correct before any attack, from any chain's verdicts."""
    return Bits.of([attack != "clean" for attack in _column(shards, "attack")])


def chain_record(chain: Chain, shards: Sequence[Result], n: int) -> ChainRecord:
    """One chain over its shards. FaultError when the verdicts are not exactly n distinct examples."""
    examples = _column(shards, "example")
    if len(examples) != n or len(set(examples)) != n:
        raise FaultError(f"chain {chain.name}: {len(set(examples))} distinct verdicts where {n} were asked for")
    by_attack: list[dict[str, Any]] = []
    for place, first in enumerate(shards[0]["by_attack"] if shards else []):
        parts = [shard["by_attack"][place] for shard in shards if shard["by_attack"]]
        summed = {name: sum(part[name] for part in parts) for name in ("broke", "standing", "forwards", "backwards")}
        by_attack.append({"attack": first["attack"], "tries": first["tries"], **summed})
    costs = [shard["cost"] for shard in shards]
    return ChainRecord(
        name=chain.name,
        norm=parse_norm(chain.threat.norm),
        eps=chain.threat.eps.text,
        attacks=[spec.as_dict() for spec in chain.attacks],
        robust=Bits.of([not fooled for fooled in _column(shards, "fooled")]),
        by_attack=by_attack,
        ties=sum(_column(shards, "tie")),
        jobs=[shard["key"] for shard in shards],
        forwards=sum(cost["forwards"] for cost in costs),
        backwards=sum(cost["backwards"] for cost in costs),
    )


def any_of(shards: Sequence[Result]) -> list[bool]:
    """Per example, whether any of the tries of a crafted set flipped it."""
    return [any(tries) for shard in shards for tries in zip(*shard["flips"], strict=True)]


def crafted_record(
    source: str, norm: Norm, eps: str, attack: dict[str, Any], judged: Sequence[Result]
) -> CraftedRecord:
    """A crafted set's flips over its shards, try by try."""
    flips = [[flip for shard in judged for flip in shard["flips"][k]] for k in range(len(judged[0]["flips"]))]
    return CraftedRecord(
        source=source,
        norm=norm,
        eps=eps,
        attack=attack,
        flips=[Bits.of(bits) for bits in flips],
        jobs=[shard["key"] for shard in judged],
    )


def total_cost(results: Sequence[Result]) -> Cost:
    """All passes and seconds of the results that carry a cost."""
    total = Cost()
    for result in results:
        if "cost" in result:
            total.add(Cost(**result["cost"]))
    return total

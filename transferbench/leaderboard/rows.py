"""Records -> one row per victim, ranked within a seed, empty where nothing was measured."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

from transferbench.leaderboard.column import Row, build_row
from transferbench.leaderboard.columns import CLEAN, COST, LEADERBOARD, UNION
from transferbench.leaderboard.measurements import Measurements, union
from transferbench.leaderboard.rates import percent
from transferbench.leaderboard.statistics import ranks
from transferbench.results.records import UNTRAINED, Record

__all__ = ["cost_rows", "leaderboard_rows", "percent", "union"]


def leaderboard_rows(records: Sequence[Record]) -> list[Row]:
    """Rows of leaderboard.csv, ranked and sorted. Without the source's record its cells are empty.

    Records of a smoke run have no row.
    """
    records = [record for record in records if UNTRAINED not in record.flags]
    sources = {record.victim: Measurements(record) for record in records if record.role == "source"}
    victims = [record for record in records if record.role == "victim"]
    rank_of = _ranks(victims)
    contexts = [Measurements(victim, sources.get(victim.source), rank_of.get(victim.victim)) for victim in victims]
    return sorted((build_row(LEADERBOARD, context) for context in contexts), key=_order)


def cost_rows(records: Sequence[Record]) -> list[Row]:
    """Rows of cost.csv: what varies from machine to machine, sources included, by victim."""
    return [build_row(COST, Measurements(record)) for record in sorted(records, key=lambda record: record.victim)]


def _order(row: Row) -> tuple[object, ...]:
    rank = int(row["rank"]) if row["rank"] != "" else 10**9
    return (
        str(row["suite"]),
        str(row["target_dataset"]),
        int(row["seed"]),
        rank,
        -float(row[UNION.name] or -1),
        -float(row[CLEAN.name] or -1),
        str(row["victim"]),
    )


def _ranks(victims: Sequence[Record]) -> dict[str, int]:
    """Ranks by victim among complete rows of one seed that can be compared."""
    groups: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in victims:
        groups[comparable(record), record.seed].append(record)
    rank_of: dict[str, int] = {}
    for group in groups.values():
        # A ranked row has every measurement that any row of its group has.
        declared = {name for record in group for name in _measurements(record)}
        unions = {record.victim: union(record) for record in group if _measurements(record) == declared}
        verdicts = {victim: bits.list() for victim, bits in unions.items() if bits is not None}
        rank_of |= dict(zip(verdicts, ranks(list(verdicts.values())), strict=True))
    return rank_of


def comparable(record: Record) -> tuple[object, ...]:
    """What two records must have alike to be compared: suite, target, examples, image size, radii and attacks."""
    attacked = (record.n, record.n_chains, record.data_fingerprint, record.images)
    return record.suite, record.target_dataset, *attacked, _threats(record)


def _threats(record: Record) -> str:
    """How the union was measured: every norm's radius, attacks, engine, precision. Others are another measurement."""
    chains = [chain for chain in record.chains if chain.name == chain.norm]
    return json.dumps(
        sorted((chain.name, chain.eps, chain.attacks, chain.backend, chain.precision) for chain in chains)
    )


def _measurements(record: Record) -> set[str]:
    """The names of a record's chains, and of the sets that were crafted with its own source."""
    own = {f"{crafted.attack['id']} {crafted.norm}" for crafted in record.crafted if crafted.source == record.source}
    return {chain.name for chain in record.chains} | own

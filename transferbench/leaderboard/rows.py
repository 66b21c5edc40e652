"""Records -> one row per victim: rates from bits, ranks within a seed, empty where nothing was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from transferbench.leaderboard.columns import COST, LEADERBOARD
from transferbench.leaderboard.statistics import ranks, wilson
from transferbench.records import Bits, Record
from transferbench.types import NORMS

Cell = str | int | float
Row = dict[str, Cell]


def percent(successes: int, n: int) -> str:
    """Two decimals; empty where the rate is undefined (n = 0)."""
    return f"{100 * successes / n:.2f}" if n else ""


def union(record: Record) -> Bits | None:
    """Survivors of all three norms' chains, example by example; None unless all three were measured."""
    chains = [record.chain(norm) for norm in NORMS]
    if any(chain is None for chain in chains):
        return None
    columns = [chain.robust.list() for chain in chains if chain is not None]
    return Bits.of([all(bits) for bits in zip(*columns, strict=True)])


def leaderboard_rows(records: Sequence[Record]) -> list[Row]:
    """Rows of leaderboard.csv, ranked and sorted. Without the source's record its cells are empty."""
    sources = {record.victim: record for record in records if record.role == "source"}
    victims = [record for record in records if record.role == "victim"]
    ranked = _ranks(victims)
    rows = [_row(record, sources.get(record.source), ranked.get(record.victim)) for record in victims]
    return sorted(rows, key=_order)


def _order(row: Row) -> tuple[object, ...]:
    rank = int(row["rank"]) if row["rank"] != "" else 10**9
    return (
        str(row["suite"]),
        str(row["target_dataset"]),
        int(row["seed"]),
        rank,
        -float(row["union_acc"] or -1),
        -float(row["clean_acc"] or -1),
        str(row["victim"]),
    )


def _ranks(victims: Sequence[Record]) -> dict[str, int]:
    """Ranks by victim among complete rows of the same suite, target, n, examples and seed."""
    groups: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in victims:
        groups[record.suite, record.target_dataset, record.n, record.data_fingerprint, record.seed].append(record)
    found: dict[str, int] = {}
    for group in groups.values():
        # What any row of the group was measured on, every ranked row must have been.
        declared = {name for record in group for name in _measured(record)}
        complete = {record.victim: union(record) for record in group if _measured(record) == declared}
        bits = {victim: together.list() for victim, together in complete.items() if together is not None}
        found |= dict(zip(bits, ranks(list(bits.values())), strict=True))
    return found


def _measured(record: Record) -> set[str]:
    return {chain.name for chain in record.chains} | ({"source_only"} if record.source_only is not None else set())


def _row(record: Record, source: Record | None, rank: int | None) -> Row:
    row: Row = dict.fromkeys(LEADERBOARD, "")
    row |= {
        "rank": "" if rank is None else rank,
        "victim": record.victim,
        "method": record.method,
        "source": record.source,
        "network": record.network,
        "source_dataset": record.source_dataset,
        "target_dataset": record.target_dataset,
        "n": record.n,
        "clean_acc": percent(record.clean.count, record.n),
        "forwards": sum(chain.forwards for chain in record.chains),
        "backwards": sum(chain.backwards for chain in record.chains),
        "seed": record.seed,
        "suite": record.suite,
    }
    for norm in NORMS:
        chain = record.chain(norm)
        if chain is not None:
            row |= {f"{norm.lower()}_eps": chain.eps, f"{norm.lower()}_acc": percent(chain.robust.count, record.n)}
    together = union(record)
    if together is not None:
        low, high = wilson(together.count, record.n)
        row["union_acc"] = percent(together.count, record.n)
        row |= {"union_low": f"{100 * low:.2f}", "union_high": f"{100 * high:.2f}"}
    pgd20 = record.chain("pgd20_linf")
    if pgd20 is not None:
        row["pgd20_linf_acc"] = percent(pgd20.robust.count, record.n)
    if source is not None:
        row |= _source_cells(source)
    only = record.source_only
    if only is not None:
        correct = record.clean.count
        row |= {
            "pretrained_eps": only.eps,
            "pretrained_neurons": only.tries,
            "pretrained_asr": percent(only.flipped.count, correct),
            "noise_asr": percent(only.control_flipped.count, correct),
        }
    if record.clean_full is not None:
        row |= {"clean_acc_full": percent(*record.clean_full), "n_full": record.clean_full[1]}
    return row


def _source_cells(source: Record) -> Row:
    cells: Row = {"source_clean_acc": percent(source.clean.count, source.n)}
    for norm in NORMS:
        chain = source.chain(norm)
        if chain is not None:
            cells[f"source_{norm.lower()}_acc"] = percent(chain.robust.count, source.n)
    together = union(source)
    if together is not None:
        cells["source_union_acc"] = percent(together.count, source.n)
    return cells


def cost_rows(records: Sequence[Record]) -> list[Row]:
    """Rows of cost.csv: what varies from machine to machine, sources included, by victim."""
    rows: list[Row] = []
    for record in sorted(records, key=lambda record: record.victim):
        rows.append({name: record.victim if name == "victim" else record.cost.get(name, "") for name in COST})
    return rows

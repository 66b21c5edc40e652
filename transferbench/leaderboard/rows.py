"""Records -> one row per victim: rates from bits, ranks within a seed, empty where nothing was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

from transferbench.base.names import file_stem
from transferbench.base.specifications import NORMS, SEED_BALL, Epsilon, Norm
from transferbench.leaderboard.columns import COST, LEADERBOARD
from transferbench.leaderboard.statistics import expected, ranks, wilson
from transferbench.results.records import UNTRAINED, Bits, Record

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
    """Rows of leaderboard.csv, ranked and sorted. Without the source's record its cells are empty.

    What a smoke run made is no row.
    """
    records = [record for record in records if UNTRAINED not in record.flags]
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
    """What a row was put through: chains by name, and what its own source was used for."""
    own = {f"{made.attack['id']} {made.norm}" for made in record.crafted if made.source == record.source}
    return {chain.name for chain in record.chains} | own


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
        "flags": " ".join(record.flags),
        "card": f"{file_stem(record.victim)}.md",
    }
    row |= _interval("clean_acc", record.clean.count, record.n)
    for norm in NORMS:
        row |= _chain_cells(record, norm)
    together = union(record)
    if together is not None:
        low, high = wilson(together.count, record.n)
        row["union_acc"] = percent(together.count, record.n)
        row |= {"union_low": f"{100 * low:.2f}", "union_high": f"{100 * high:.2f}"}
    pgd20 = record.chain("pgd20_linf")
    if pgd20 is not None:
        row["pgd20_linf_acc"] = percent(pgd20.robust.count, record.n)
        row |= _interval("pgd20_linf_acc", pgd20.robust.count, record.n)
    if source is not None:
        row |= _source_cells(source)
        row |= _changes(record, source)
    row |= _crafted_cells(record)
    if record.clean_full is not None:
        row |= {"clean_acc_full": percent(*record.clean_full), "n_full": record.clean_full[1]}
    return row


def _interval(rate: str, successes: int, n: int) -> Row:
    if not n:
        return {}
    low, high = wilson(successes, n)
    return {f"{rate}_low": f"{100 * low:.2f}", f"{rate}_high": f"{100 * high:.2f}"}


def _chain_cells(record: Record, norm: Norm) -> Row:
    """Radius, rate, interval and expected robustness of one norm; nothing where it was not measured."""
    chain, name = record.chain(norm), norm.lower()
    if chain is None:
        return {}
    cells: Row = {f"{name}_eps": chain.eps, f"{name}_acc": percent(chain.robust.count, record.n)}
    cells |= _interval(f"{name}_acc", chain.robust.count, record.n)
    points = [(radius, rate) for radius, rate in curve(record, norm) if radius <= Epsilon.parse(chain.eps).value]
    if len(points) > 2:
        cells[f"{name}_expected"] = f"{100 * expected(points):.2f}"
    return cells


def curve(record: Record, norm: Norm) -> list[tuple[Fraction, float]]:
    """(radius, share robust) of a norm, ascending: radius 0 is clean, then the chain at every radius it was run at."""
    chains = [chain for chain in record.chains if chain.name == norm or chain.name.startswith(f"{norm}@")]
    points = {Epsilon.parse(chain.eps).value: chain.robust.count / record.n for chain in chains}
    return [(Fraction(0), record.clean.count / record.n), *sorted(points.items())]


def _changes(record: Record, source: Record) -> Row:
    """What the victim has more than its source, in points, each on its own task."""

    def rates(one: Record) -> dict[str, Bits | None]:
        chains = {norm.lower(): one.chain(norm) for norm in NORMS}
        robust = {name: None if chain is None else chain.robust for name, chain in chains.items()}
        return {"clean": one.clean, **robust, "union": union(one)}

    mine, theirs = rates(record), rates(source)
    return {
        f"change_{name}": f"{100 * (bits.count / record.n - other.count / source.n):+.2f}"
        for name, bits in mine.items()
        if bits is not None and (other := theirs[name]) is not None
    }


def _crafted_cells(record: Record) -> Row:
    """Attacks that hold the victim's own source alone, each beside random signs counted in the same way."""
    correct, cells = record.clean.count, Row()
    noise = record.control()
    neurons = record.made("pretrained-neuron")
    if neurons is not None:
        cells |= {"pretrained_eps": neurons.eps, "pretrained_neurons": len(neurons.flips)}
    for rate, made in (("pretrained_asr", neurons), ("noise_asr", noise)):
        if made is not None:
            cells |= {rate: percent(made.any_of(), correct), f"{rate}_n": percent(made.any_of(), record.n)}
            cells |= _interval(rate, made.any_of(), correct)
    seed = record.made("pretrained-neuron", ball=SEED_BALL)
    seed_noise = record.control(SEED_BALL)
    if seed is not None:
        cells |= {"pretrained_seed_eps": seed.eps, "pretrained_seed_asr": percent(seed.any_of(), correct)}
        if seed_noise is not None:
            cells["noise_seed_asr"] = percent(seed_noise.any_of(len(seed.flips)), correct)
    pgd = record.made("source-pgd")
    if pgd is not None:
        cells["source_pgd_asr"] = percent(pgd.any_of(), correct)
        if noise is not None:
            cells["source_pgd_noise_asr"] = percent(noise.any_of(len(pgd.flips)), correct)
    return cells


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

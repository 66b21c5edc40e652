"""extensions.csv: every method beside the one that it adds to, on the same examples, and what its training cost.

Which method adds to which is in the records, as the methods' files declare it (`extends`, `variants`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from transferbench.base.ids import without_seed
from transferbench.leaderboard import comparison
from transferbench.leaderboard.column import Cell, Column, Row, build_row
from transferbench.leaderboard.comparison import CLEAN, UNION, VictimPair, VictimSeries, p_text, verdicts_of
from transferbench.leaderboard.escape import markdown_cell
from transferbench.leaderboard.families import variant_text
from transferbench.leaderboard.statistics import holm
from transferbench.leaderboard.tables import table
from transferbench.results.records import UNTRAINED, Record

MEASURES = (CLEAN, UNION)


@dataclass(frozen=True)
class Extension:
    """The context of a row: the records of a method and of the one that it adds to, by seed, for the seeds that both
    have, and the comparison in each measure. `p_holm` is by measure, over all rows of the table."""

    own: Sequence[Record]
    base: Sequence[Record]
    pairs: dict[str, VictimPair]
    p_holm: dict[str, float]


Side = Callable[[Extension], Sequence[Record]]


def _own(one: Extension) -> Sequence[Record]:
    return one.own


def _base(one: Extension) -> Sequence[Record]:
    return one.base


def _name(record: Record) -> str:
    return without_seed(record.victim, record.seed)


def _passes(side: Side, of: Callable[[Record], int | None]) -> Callable[[Extension], Cell]:
    def value(one: Extension) -> Cell:
        counts = [count for record in side(one) if (count := of(record)) is not None]
        return round(mean(counts)) if counts and len(counts) == len(side(one)) else ""

    return value


def _passes_columns(kind: str, of: Callable[[Record], int | None]) -> list[Column[Extension]]:
    meaning = f"rows {kind} through the networks of its training, inner attacks included, mean over seeds"
    return [
        Column(f"train_{kind}s", meaning, _passes(_own, of)),
        Column(f"train_{kind}s_extended", "likewise of the row it is compared with", _passes(_base, of)),
    ]


def _measure_columns(measure: str) -> list[Column[Extension]]:
    def of(value: Callable[[VictimPair], float], form: str = ".2f") -> Callable[[Extension], Cell]:
        return lambda one: f"{value(one.pairs[measure]):{form}}" if measure in one.pairs else ""

    def p_holm(one: Extension) -> Cell:
        return f"{one.p_holm[measure]:.4g}" if measure in one.p_holm else ""

    return [
        Column(measure, f"its {measure} accuracy, mean over seeds, %", of(lambda pair: 100 * pair.first_rate)),
        Column(f"{measure}_extended", "likewise of the other row", of(lambda pair: 100 * pair.second_rate)),
        Column(f"{measure}_difference", "the first less the second, points", of(lambda p: 100 * p.difference + 0.0)),
        Column(f"{measure}_low", "lower end of its 95 % interval, the image its unit", of(lambda p: 100 * p.low)),
        Column(f"{measure}_high", "upper end", of(lambda p: 100 * p.high)),
        Column(
            f"{measure}_only_own", "verdicts over seeds that are right for it alone", of(lambda p: p.only_first, "d")
        ),
        Column(f"{measure}_only_extended", "for the other alone", of(lambda p: p.only_second, "d")),
        Column(f"{measure}_p", "exact McNemar test, over seeds with the image as its unit", of(lambda p: p.p, ".4g")),
        Column(f"{measure}_p_holm", "Holm-corrected over all rows", p_holm),
    ]


EXTENSIONS: list[Column[Extension]] = [
    Column("suite", "suite", lambda one: one.own[0].suite),
    Column("target_dataset", "what both were trained and attacked on", lambda one: one.own[0].target_dataset),
    Column("source", "what both started from", lambda one: without_seed(one.own[0].source, one.own[0].seed)),
    Column("victim", "id without its seed", lambda one: _name(one.own[0])),
    Column("method", "its method", lambda one: one.own[0].method),
    Column("variant", "hyper-parameters that are an extension of their own", lambda one: variant_text(one.own[0])),
    Column("extended", "id of the row that it adds to, without its seed", lambda one: _name(one.base[0])),
    Column("extended_method", "that row's method", lambda one: one.base[0].method),
    Column("extended_variant", "likewise its hyper-parameters", lambda one: variant_text(one.base[0])),
    Column("seeds", "seeds that both have", lambda one: len(one.own)),
    Column("n", "attacked test examples of each seed", lambda one: one.own[0].n),
    *_measure_columns(CLEAN),
    *_measure_columns(UNION),
    *_passes_columns("forward", lambda record: record.train_forwards),
    *_passes_columns("backward", lambda record: record.train_backwards),
]


def extensions(records: Sequence[Record]) -> list[Extension]:
    """Every row beside each row that it adds to: with one of its variants less, else of the nearest method that it
    extends and that has a row of the same variants. Suite, target, source, attacked images, and whether weights of the
    source were used, are the same. In the order of the names."""
    series: dict[tuple[object, ...], dict[int, Record]] = defaultdict(dict)
    for record in records:
        if record.role == "victim" and UNTRAINED not in record.flags:
            series[_same(record), _name(record)][record.seed] = record
    pairs = []
    for (same, _), own in sorted(series.items(), key=lambda item: str(item[0])):
        others = [other for (theirs, _), other in series.items() if theirs == same and other is not own]
        for base in _bases(next(iter(own.values())), others):
            seeds = sorted(own.keys() & base.keys())
            if seeds:
                pairs.append(([own[seed] for seed in seeds], [base[seed] for seed in seeds]))
    compared = [_compared(own, base) for own, base in pairs]
    adjusted: list[dict[str, float]] = [{} for _ in pairs]
    for measure in MEASURES:
        places = [place for place, found in enumerate(compared) if measure in found]
        for place, p in zip(places, holm([compared[place][measure].p for place in places]), strict=True):
            adjusted[place][measure] = p
    return [
        Extension(own, base, found, p_holm)
        for (own, base), found, p_holm in zip(pairs, compared, adjusted, strict=True)
    ]


def _same(record: Record) -> tuple[object, ...]:
    source = without_seed(record.source, record.seed)
    images = record.n, record.n_chains, record.data_fingerprint, record.images
    return record.suite, record.target_dataset, source, record.head != "", *images


def _bases(own: Record, others: Sequence[dict[int, Record]]) -> Iterator[dict[int, Record]]:
    """What a row adds to, among the others of its kind."""

    def of(method: str, variant: dict[str, str]) -> list[dict[int, Record]]:
        firsts = ((other, next(iter(other.values()))) for other in others)
        return [other for other, first in firsts if (first.method, first.variant) == (method, variant)]

    for name in own.variant:
        yield from of(own.method, {key: value for key, value in own.variant.items() if key != name})
    for method in own.extends:
        found = of(method, own.variant)
        if found:
            yield from found
            return


def _compared(own: Sequence[Record], base: Sequence[Record]) -> dict[str, VictimPair]:
    """The comparison by measure, over seeds where there are several."""
    victims = [
        VictimSeries(_name(side[0]), {record.seed: verdicts_of(record) for record in side}) for side in (own, base)
    ]
    measures = [measure for measure in MEASURES if all(measure in one.columns for one in victims)]
    return {pair.column: pair for pair in comparison.compare(victims, measures).pairs}


def rows(records: Sequence[Record]) -> list[Row]:
    """Rows of extensions.csv."""
    return [build_row(EXTENSIONS, one) for one in extensions(records)]


def markdown(records: Sequence[Record]) -> str:
    """The table of a page; empty where no row adds to another."""
    found = extensions(records)
    if not found:
        return ""
    lines = []
    for one, row in zip(found, rows(records), strict=True):
        names = [markdown_cell(row[name]) for name in ("victim", "source", "extended")]
        lines.append([*names, *(_difference(one, measure) for measure in MEASURES), _cost(row)])
    header = ["row", "source", "adds to", "clean", "union", "training passes"]
    return (
        "## What each method adds\n\nEvery row less the row that it adds to, on the same examples, in points, mean "
        "over seeds, with the 95 % interval; p of the exact McNemar test over seeds with the image as the unit, not "
        "corrected (Holm's correction over this table, counts and rates: extensions.csv). Training passes are rows "
        "forward and backward, inner attacks included, in thousands, and how many times the other's they are; seconds "
        "are in cost.csv.\n\n" + table(header, lines, 3)
    )


def _difference(one: Extension, measure: str) -> str:
    pair = one.pairs.get(measure)
    if pair is None:
        return ""
    difference, low, high = (f"{100 * value + 0.0:+.2f}" for value in (pair.difference, pair.low, pair.high))
    p = p_text(pair.p)
    return f"{difference} [{low}, {high}], p {p if p.startswith('<') else f'= {p}'}"


def _cost(row: Row) -> str:
    own, base = ([row[f"train_{kind}s{ending}"] for kind in ("forward", "backward")] for ending in ("", "_extended"))
    if "" in own:
        return ""
    text = f"{int(own[0]) / 1000:.0f} + {int(own[1]) / 1000:.0f}"
    return text if "" in base else f"{text}, {sum(map(int, own)) / sum(map(int, base)):.1f} times"

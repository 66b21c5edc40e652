"""Families of leaderboard columns: rates, and what derives from a rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from transferbench.base.ids import PRETRAINED_NEURON
from transferbench.base.results import FileFormat
from transferbench.base.specifications import Norm, ThreatName
from transferbench.leaderboard.column import Cell, Column, Group
from transferbench.leaderboard.corruptions import Score
from transferbench.leaderboard.measurements import Measurements
from transferbench.leaderboard.rates import Rate
from transferbench.results.records import ChainRecord, CraftedRecord, Record

BoardColumn = Column[Measurements]
RateOf = Callable[[Measurements], Rate | None]
FilesOf = Callable[[Record], ChainRecord | CraftedRecord | None]
ScoreOf = Callable[[Measurements], Score | None]


@dataclass(frozen=True)
class RateColumn(BoardColumn):
    """A percentage by its counts; further columns derive from it."""

    value: Callable[[Measurements], Cell] = field(init=False)
    rate: RateOf = field(kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", lambda m: "" if (rate := self.rate(m)) is None else rate.percent)


def identity(
    name: str, meaning: str, value: Callable[[Measurements], str], filter: str, *, setting: bool = False
) -> BoardColumn:
    """A text that tells victims apart, with a filter."""
    heading = name.replace("_", " ")
    return Column(name, meaning, value, heading, Group.VICTIM, text=True, filter=filter, setting=setting)


def ends_of(name: str) -> tuple[str, str]:
    """The names of the columns that hold the ends of a rate's interval."""
    return f"{name}_low", f"{name}_high"


def ends(column: RateColumn) -> list[BoardColumn]:
    """The columns that hold the ends of a rate's interval."""
    return [
        Column(name, f"{side} end of the 95 % Wilson interval of {column.name}, %", end(column, place))
        for place, (name, side) in enumerate(zip(ends_of(column.name), ("lower", "upper"), strict=True))
    ]


def end(column: RateColumn, place: int) -> Callable[[Measurements], Cell]:
    """The value of the lower (0) or upper (1) end of a rate's interval."""
    return lambda m: "" if (rate := column.rate(m)) is None else rate.interval[place]


def accuracy(name: str, meaning: str, norm: Norm) -> RateColumn:
    """Accuracy under a norm's chain."""
    return RateColumn(
        name,
        meaning,
        norm,
        Group.ROBUST,
        rate=lambda m: m.robust.get(norm),
        norm=norm,
        interval=ends_of(name),
        summary=norm,
        readme=True,
        terminal=norm,
        metric="robust_accuracy",
    )


def corrupted(name: str, meaning: str, heading: str, score: ScoreOf, *, summary: str = "") -> list[BoardColumn]:
    """A score on corrupted images, and the columns that hold the ends of its interval."""

    def value(m: Measurements) -> Cell:
        found = score(m)
        return "" if found is None else found.percent

    def of_end(place: int) -> Callable[[Measurements], Cell]:
        return lambda m: "" if (found := score(m)) is None else found.interval[place]

    low, high = ends_of(name)
    return [
        Column(
            name,
            meaning,
            value,
            heading,
            Group.CORRUPTIONS,
            interval=(low, high),
            summary=summary,
            summary_order=2,
            optional=True,
        ),
        Column(low, f"lower end of the 95 % interval of {name}, an image its unit, %", of_end(0), optional=True),
        Column(high, f"upper end of the 95 % interval of {name}, an image its unit, %", of_end(1), optional=True),
    ]


def flagged(record: Record) -> list[str]:
    """The record's flags, with the share of clean-correct examples of those that are counted by example."""
    shares = {name: f"={count}/{record.clean_of_chains.count}" for name, count in record.flag_rows.items()}
    return [f"{name}{shares.get(name, '')}" for name in record.flags]


def variant_text(record: Record) -> str:
    """`tune=lora`, of several separated by spaces; empty for a method at its defaults."""
    return " ".join(f"{name}={value}" for name, value in sorted(record.variant.items()))


def radius(name: str, meaning: str, norm: Norm) -> BoardColumn:
    """The radius of a norm's chain."""

    def value(m: Measurements) -> Cell:
        chain = m.record.chain(norm)
        return "" if chain is None else chain.eps

    return Column(name, meaning, value, f"{norm} eps", Group.MORE, norm=norm, text=True)


def expected(name: str, meaning: str, norm: Norm, *, summary: str = "", summary_order: int = 0) -> BoardColumn:
    """Expected robustness over a norm's radii."""

    def value(m: Measurements) -> Cell:
        share = m.expected(norm)
        return "" if share is None else f"{100 * share:.2f}"

    heading, group = f"{norm} expected", Group.EXPECTED
    return Column(name, meaning, value, heading, group, norm=norm, summary=summary, summary_order=summary_order)


def of_source(name: str, meaning: str, column: RateColumn, *, summary: str = "") -> BoardColumn:
    """A rate of the source, on its own task."""

    def rate(m: Measurements) -> Rate | None:
        return None if m.source is None else column.rate(m.source)

    heading = f"source {column.heading}"
    return RateColumn(name, meaning, heading, Group.SOURCE, rate=rate, norm=column.norm, summary=summary)


def change(name: str, meaning: str, column: RateColumn) -> BoardColumn:
    """A rate of the victim minus that of its source, in points."""

    def value(m: Measurements) -> Cell:
        victim, source = column.rate(m), None if m.source is None else column.rate(m.source)
        return "" if victim is None or source is None else f"{100 * (victim.share - source.share):+.2f}"

    return Column(name, meaning, value, f"change {column.heading}", Group.CHANGE, norm=column.norm)


def crafted_radius(name: str, meaning: str, heading: str, threat: ThreatName) -> BoardColumn:
    """The radius of the pre-trained-neuron attack under a threat."""

    def value(m: Measurements) -> Cell:
        crafted = m.record.crafted_set(PRETRAINED_NEURON, threat=threat)
        return "" if crafted is None else crafted.eps

    return Column(name, meaning, value, heading, Group.MORE, text=True)


def as_file(name: str, meaning: str, heading: str, format: FileFormat, of: FilesOf, norm: Norm | None) -> RateColumn:
    """The share of fooling points that still fool as image files of a format."""

    def rate(m: Measurements) -> Rate | None:
        attacked = of(m.record)
        file = None if attacked is None else next((one for one in attacked.files if one.format == format), None)
        return None if file is None or attacked is None else Rate(file.fooling.count, fooled_by(m.record, attacked))

    return RateColumn(name, meaning, heading, Group.FILES, rate=rate, norm=norm, optional=True)


def fooled_by(record: Record, attacked: ChainRecord | CraftedRecord) -> int:
    """The number of clean-correct examples that a chain, or any try of a crafted set, fools."""
    if isinstance(attacked, CraftedRecord):
        return attacked.any_of()
    return record.clean_of_chains.count - attacked.robust.count


def over_all(column: RateColumn) -> BoardColumn:
    """An attack success rate over all n instead of the clean-correct."""

    def rate(m: Measurements) -> Rate | None:
        flipped = column.rate(m)
        return None if flipped is None else Rate(flipped.successes, m.record.n)

    meaning = f"{column.name}'s numerator over all n, %"
    return RateColumn(f"{column.name}_n", meaning, f"{column.heading} n", Group.MORE, rate=rate)


def cost(name: str, meaning: str, heading: str = "", group: Group | None = None) -> BoardColumn:
    """An entry of the record's cost."""
    return Column(name, meaning, lambda m: m.record.cost.get(name, ""), heading, group)

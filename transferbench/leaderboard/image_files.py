"""Fooling points saved as image files: how many still fool, beside the control, for every chain and crafted set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean
from typing import NamedTuple

from transferbench.base.ids import PRETRAINED_NEURON
from transferbench.base.specifications import NORMS
from transferbench.leaderboard import paired
from transferbench.leaderboard.column import Column, Row, build_row
from transferbench.leaderboard.escape import markdown_cell
from transferbench.leaderboard.families import fooled_by
from transferbench.leaderboard.pooling import Series, labelled
from transferbench.leaderboard.rates import Rate
from transferbench.leaderboard.tables import table
from transferbench.results.records import CraftedRecord, FileRecord, Record


class SavedPoints(NamedTuple):
    """The context of a row: the fooling points of a chain or of a crafted set, in files of one format."""

    record: Record
    attack: str
    source: str
    norm: str
    eps: str
    fooled: int
    file: FileRecord

    @property
    def still(self) -> Rate:
        return Rate(self.file.fooling.count, self.fooled)

    @property
    def control(self) -> Rate:
        return Rate(self.file.control.count, self.fooled)

    @property
    def difference(self) -> paired.Ends | None:
        """In points, with the ends of its interval: the points' rate less the control's."""
        if not self.fooled:
            return None
        return paired.difference(self.file.fooling.number, self.file.control.number, self.fooled)


IMAGE_FILES: list[Column[SavedPoints]] = [
    Column("victim", "id of the attacked network", lambda one: one.record.victim),
    Column("attack", "the chain, or the attack with the source alone", lambda one: one.attack),
    Column("source", "the public network that a set was made with; empty for a chain", lambda one: one.source),
    Column("norm", "its threat", lambda one: one.norm),
    Column("eps", "its radius, which a saved point may leave", lambda one: one.eps),
    Column("format", "8bit: 8 bits a value without loss; jpeg90: JPEG of quality 90", lambda one: one.file.format),
    Column("fooled", "clean-correct examples with a fooling point", lambda one: one.fooled),
    Column("still_fooled", "of them fooled by the point when it is read again", lambda one: one.file.fooling.count),
    Column("still_fooling", "still_fooled of fooled, %", lambda one: one.still.percent),
    Column("still_fooling_low", "lower end of its 95 % Wilson interval, %", lambda one: one.still.interval[0]),
    Column("still_fooling_high", "upper end, %", lambda one: one.still.interval[1]),
    Column(
        "control",
        "the same examples' clean images, saved likewise: share that is misclassified, %",
        lambda one: one.control.percent,
    ),
    *paired.columns("still_fooling less control"),
]


def saved_points(record: Record) -> Iterator[SavedPoints]:
    """Of every chain, then of every crafted set that is no control, by format."""
    for chain in record.chains:
        fooled = fooled_by(record, chain)
        yield from (SavedPoints(record, chain.name, "", chain.norm, chain.eps, fooled, file) for file in chain.files)
    for crafted in record.crafted:
        if not crafted.is_control:
            yield from _of_set(record, crafted)


def _of_set(record: Record, crafted: CraftedRecord) -> Iterator[SavedPoints]:
    id, fooled = crafted.attack["id"], fooled_by(record, crafted)
    for file in crafted.files:
        yield SavedPoints(record, id, crafted.source, crafted.norm, crafted.eps, fooled, file)


def rows(records: Sequence[Record]) -> list[Row]:
    """Rows of image_files.csv, by victim."""
    ordered = sorted(records, key=lambda record: (record.victim, record.suite))
    return [build_row(IMAGE_FILES, one) for record in ordered for one in saved_points(record)]


def markdown(records: Sequence[Record]) -> str:
    """A line per method and source: the norms' chains and the pre-trained-neuron attack; empty without any."""
    victims = [record for record in records if record.role == "victim" and any(True for _ in saved_points(record))]
    victims.sort(key=lambda record: (record.victim, record.suite))
    if not victims:
        return ""
    named = labelled(victims)
    label_of = dict(named.values())
    found: dict[Series, list[SavedPoints]] = {}
    for record in victims:
        found.setdefault(named[record.victim][0], []).extend(_shown(record))
    every = [one for several in found.values() for one in several]
    columns = list(dict.fromkeys((one.attack, one.file.format) for one in every))
    lines = [
        [markdown_cell(label_of[series]), markdown_cell(series.source), *(_cell(several, *of) for of in columns)]
        for series, several in sorted(found.items(), key=lambda item: (item[0].source, label_of[item[0]]))
    ]
    header = ["method", "source", *(f"{attack} {format}" for attack, format in columns)]
    return (
        "## Saved as image files\n\nShare of the fooling points that still fool when they are saved and read again, %, "
        "mean over seeds: with 8 bits a value, and as JPEG of quality 90. In brackets the control: the share of the "
        "same examples whose clean image, saved likewise, is misclassified. Judged, not attacked: an attack that knew "
        "of the file would search for other points, and no accuracy above has anything of this in it. With counts and "
        "intervals: image_files.csv.\n\n" + table(header, lines, 2)
    )


def _shown(record: Record) -> list[SavedPoints]:
    """What the table has: the norms' own chains, and the pre-trained-neuron attack with the victim's own source."""
    return [
        one
        for one in saved_points(record)
        if one.attack in NORMS or (one.attack, one.source, one.norm) == (PRETRAINED_NEURON, record.source, "Linf")
    ]


def _cell(several: Sequence[SavedPoints], attack: str, format: str) -> str:
    measured = [one for one in several if (one.attack, one.file.format) == (attack, format) and one.fooled]
    if not measured:
        return ""
    control = mean(one.control.points for one in measured)
    return f"{mean(one.still.points for one in measured):.1f} ({control:.1f})"

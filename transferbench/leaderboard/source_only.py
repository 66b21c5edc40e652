"""Attacks that hold the source alone, each beside what it is compared with on the same clean-correct examples: its
controls, the same attack made with another network, and the white-box attack at the same radius."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_
from statistics import mean
from typing import NamedTuple

from transferbench.base.ids import RANDOM_SIGN, without_seed
from transferbench.base.specifications import NORMS
from transferbench.leaderboard import paired
from transferbench.leaderboard.column import Column, Row, build_row
from transferbench.leaderboard.escape import markdown_cell
from transferbench.leaderboard.pooling import Series, labelled
from transferbench.leaderboard.rates import percent
from transferbench.leaderboard.tables import table
from transferbench.results.records import CraftedRecord, Record

ALL = "all"
"""Every source-only attack together: an example that any try of any of them flips."""
WHITE_BOX = "white-box"


class Flips(NamedTuple):
    """Which of the clean-correct examples are flipped, as the bits of a whole number, by any of so many tries."""

    name: str
    bits: int
    tries: int


class Comparison(NamedTuple):
    """The context of a row: an attack, and what it is compared with; both as shares of the `correct` examples."""

    record: Record
    norm: str
    attack: Flips
    other: Flips
    correct: int
    source: str

    @property
    def difference(self) -> paired.Ends | None:
        """In points, with the ends of its interval: the attack's rate less the other's."""
        return paired.difference(self.attack.bits, self.other.bits, self.correct) if self.correct else None


SOURCE_ONLY: list[Column[Comparison]] = [
    Column("victim", "id of the attacked network", lambda one: one.record.victim),
    Column("source", "the public network that the attacker holds", lambda one: one.source),
    Column("attack", "what was made with it; all: every attack of this norm together", lambda one: one.attack.name),
    Column("norm", "its threat", lambda one: one.norm),
    Column("tries", "points per example, any of which counts", lambda one: one.attack.tries),
    Column("correct", "examples that were correct on clean", lambda one: one.correct),
    Column("flipped", "of them wrong at any point", lambda one: one.attack.bits.bit_count()),
    Column("asr", "flipped of correct, %", lambda one: percent(one.attack.bits.bit_count(), one.correct)),
    Column(
        "compared_with",
        "a control with as many tries, `made with` another network, or white-box: the victim's own chain of the norm "
        "at this radius",
        lambda one: one.other.name,
    ),
    Column("other_asr", "the same for it, %", lambda one: percent(one.other.bits.bit_count(), one.correct)),
    *paired.columns("asr less other_asr"),
]


def held(record: Record) -> str:
    """The source that the attacker holds whose sets are compared with controls: the victim's own, or where nothing was
    made with it the one that the user gave to `eval`, after which random signs are named."""
    if any(one.source == record.source and not one.is_control for one in record.crafted):
        return record.source
    return next((one.source for one in record.crafted if one.attack["id"] == RANDOM_SIGN), record.source)


def comparisons(record: Record) -> Iterator[Comparison]:
    """All comparisons of a victim, attack by attack, with the attacks made with the source that the attacker holds.

    With the white-box attack on the examples that the chains attacked, which may be fewer than the others.
    """
    source = held(record)
    made = [one for one in record.crafted if not one.is_control and one.source == source]
    for norm in dict.fromkeys(one.norm for one in made):
        attacks = [one for one in made if one.norm == norm]
        flips = {one.attack["id"]: Flips(one.attack["id"], one.flipped(), len(one.flips)) for one in attacks}
        tries = sum(one.tries for one in flips.values())
        together = Flips(ALL, reduce(or_, (one.bits for one in flips.values()), 0), tries)
        for crafted in attacks:
            attack = flips[crafted.attack["id"]]
            others = [
                *_noise(record, crafted.norm, attack.tries),
                *(Flips(one.attack["id"], one.flipped(), len(one.flips)) for one in record.controls_of(crafted)),
                *_elsewhere(record, crafted),
                *_white_box(record, crafted),
            ]
            yield from (_compared(record, norm, attack, other, source) for other in others)
        if len(attacks) > 1:
            others = [*_noise(record, norm, tries), *_white_box(record, attacks[0])]
            yield from (_compared(record, norm, together, other, source) for other in others)


def _compared(record: Record, norm: str, attack: Flips, other: Flips, source: str) -> Comparison:
    if other.name != WHITE_BOX:
        return Comparison(record, norm, attack, other, record.clean.count, source)
    of_chains = attack._replace(bits=attack.bits >> (record.n - record.n_chains))
    return Comparison(record, norm, of_chains, other, record.clean_of_chains.count, source)


def _noise(record: Record, norm: str, tries: int) -> list[Flips]:
    """As many draws of random signs; nothing where there are fewer."""
    control = next((one for one in record.crafted if (one.attack["id"], one.norm) == (RANDOM_SIGN, norm)), None)
    if control is None or len(control.flips) < tries:
        return []
    return [Flips(RANDOM_SIGN, control.flipped(tries), tries)]


def _elsewhere(record: Record, crafted: CraftedRecord) -> list[Flips]:
    """The same attack made with the other sources."""
    same = [
        one
        for one in record.crafted
        if one.source != crafted.source
        and (one.attack, one.norm, one.eps) == (crafted.attack, crafted.norm, crafted.eps)
    ]
    return [Flips(f"made with {one.source}", one.flipped(), len(one.flips)) for one in same]


def _white_box(record: Record, crafted: CraftedRecord) -> list[Flips]:
    """The victim's own chain of the norm at the radius of the set."""
    if crafted.norm not in NORMS:
        return []
    chains = [chain for chain in record.chains if (chain.norm, chain.eps) == (crafted.norm, crafted.eps)]
    chain = next((chain for chain in chains if chain.name.partition("@")[0] == crafted.norm), None)
    if chain is None:
        return []
    tries = sum(int(part["tries"]) for part in chain.by_attack)
    return [Flips(WHITE_BOX, record.clean_of_chains.number & ~chain.robust.number, tries)]


def rows(records: Sequence[Record]) -> list[Row]:
    """Rows of source_only.csv, by victim; of each attack by attack."""
    ordered = sorted(records, key=lambda record: (record.victim, record.suite))
    return [build_row(SOURCE_ONLY, one) for record in ordered for one in comparisons(record)]


class Gap(NamedTuple):
    """Means over seeds, in %: a rate, what it is compared with, and the difference with its interval's ends."""

    asr: float
    other: float
    difference: float
    low: float
    high: float

    @property
    def text(self) -> str:
        return f"{self.difference:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def _gap(found: Sequence[Comparison]) -> Gap | None:
    measured = [one for one in found if one.correct]
    if not measured:
        return None
    shares = [(100 * one.attack.bits.bit_count() / one.correct, 100 * one.other.bits.bit_count() / one.correct)
              for one in measured]  # fmt: skip
    ends = [one.difference for one in measured if one.difference is not None]
    return Gap(*(mean(column) for column in zip(*shares, strict=True)), *(mean(c) for c in zip(*ends, strict=True)))


def markdown(records: Sequence[Record]) -> str:
    """For every victim: the suite's first attack, all together, and the white-box attack; empty without any."""
    victims = [record for record in records if record.role == "victim" and any(True for _ in comparisons(record))]
    victims.sort(key=lambda record: (record.victim, record.suite))
    if not victims:
        return ""
    named = labelled(victims)
    label_of = dict(named.values())
    found: dict[Series, list[Comparison]] = {}
    for record in victims:
        found.setdefault(named[record.victim][0], []).extend(comparisons(record))
    parts = []
    for norm in dict.fromkeys(one.norm for several in found.values() for one in several):
        lines, attacks = [], []
        for series, several in sorted(found.items(), key=lambda item: (item[0].source, label_of[item[0]])):
            line, first = _line([one for one in several if one.norm == norm])
            lines.append([markdown_cell(label_of[series]), markdown_cell(_sources(several)), *line])
            attacks.append(first)
        header = ["method", "source", f"`{attacks[0]}`", "less noise", "less another network's", "all attacks",
                  "less noise", "white-box", "secrecy"]  # fmt: skip
        parts.append((f"### {norm}\n\n" if norm != "Linf" else "") + table(header, lines, 2))
    return (
        "## Attacks that hold the source alone\n\nShare of the clean-correct examples that are flipped, %, mean over "
        "seeds, and paired differences in points with their 95 % intervals (the means of each seed's ends). The first "
        "attack is the one that the suite fixed beforehand; *noise*: as many draws of random signs; *another "
        "network's*: the same attack made with the suite's other source: only what exceeds it is knowledge of this "
        "source; *all attacks*: any try of any of them; *white-box*: the chain of the norm at the same radius; "
        "*secrecy*: white-box less all attacks, on the examples that both attacked: what keeping the tuned weights "
        "secret buys. Every attack with every control: source_only.csv.\n\n" + "\n\n".join(parts)
    )


def _sources(several: Sequence[Comparison]) -> str:
    """The source without its seed; of every one, where the user gave several to one victim."""
    return ", ".join(dict.fromkeys(without_seed(one.source, one.record.seed) for one in several))


def _line(several: Sequence[Comparison]) -> tuple[list[str], str]:
    """(the cells of a row after its names, the first attack)."""
    first = next((one.attack.name for one in several if one.attack.name != ALL), "")

    def gap(attack: str, other: str) -> Gap | None:
        return _gap([one for one in several if one.attack.name == attack and one.other.name.startswith(other)])

    noise, elsewhere = gap(first, RANDOM_SIGN), gap(first, "made with ")
    all_noise, white = gap(ALL, RANDOM_SIGN), gap(ALL, WHITE_BOX)
    one, every = noise or gap(first, WHITE_BOX), all_noise or white
    secrecy = "" if white is None else f"{-white.difference:+.1f} [{-white.high:+.1f}, {-white.low:+.1f}]"
    return [
        "" if one is None else f"{one.asr:.1f}",
        "" if noise is None else noise.text,
        "" if elsewhere is None else elsewhere.text,
        "" if every is None else f"{every.asr:.1f}",
        "" if all_noise is None else all_noise.text,
        "" if white is None else f"{white.other:.1f}",
        secrecy,
    ], first

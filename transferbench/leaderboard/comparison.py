"""Victims compared pair by pair on the same examples: differences, intervals, exact tests, and how they are printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.specifications import NORMS
from transferbench.leaderboard.measurements import union
from transferbench.leaderboard.seeds import paired
from transferbench.leaderboard.statistics import holm
from transferbench.results.records import Bits, Record

if TYPE_CHECKING:
    import pandas as pd

CLEAN, UNION = "clean", "union"
DEFAULT = (CLEAN, *NORMS, UNION)
"""The columns that are compared where none is named, in this order."""
POOLED = "pooled"
"""The seed of a pair over all of its seeds."""
MOST_VICTIMS = 60
"""Victims of one comparison: 60 are 1770 pairs of every column and seed."""
TEST = (
    "exact two-sided McNemar test; pooled over seeds: exact conditional test of the images' sums over seeds, the image "
    "being the unit; p_holm: Holm-corrected over all pairs of the column and the seed"
)
INTERVAL = (
    "95 %, Bonett and Price 2012 for paired proportions; pooled over seeds: of the mean over seeds, at the effective "
    "number of images"
)


@dataclass(frozen=True)
class VictimVerdicts:
    """What one victim did on n examples: by column, whether each was right there (clean), or right and not fooled.

    `examples` names the examples in their order: verdicts are compared where it is equal, and `dataset` too where both
    are known. `measured` says by column how it was measured (radius, attacks), where that is known.
    """

    victim: str
    seed: int
    examples: str
    columns: dict[str, NDArray[np.bool_]]
    measured: dict[str, str] = field(default_factory=dict)
    dataset: str = ""

    @property
    def described(self) -> str:
        """The examples in words."""
        return f"{self.dataset}, {self.examples}" if self.dataset else self.examples

    @property
    def n(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class VictimSeries:
    """A victim with its verdicts by seed."""

    name: str
    seeds: dict[int, VictimVerdicts]

    @property
    def columns(self) -> list[str]:
        """The columns that every seed has, in the first's order."""
        first, *others = self.seeds.values()
        return [name for name in first.columns if all(name in other.columns for other in others)]


@dataclass(frozen=True)
class VictimPair:
    """Two victims in one column and one seed (`pooled`: over `seeds` seeds). Rates and differences are shares of the n
    examples, means over seeds; `only_first` and `only_second` count discordant verdicts over all seeds."""

    column: str
    seed: str
    seeds: int
    first: str
    second: str
    n: int
    first_rate: float
    second_rate: float
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float
    p_holm: float


def verdicts_of(record: Record) -> VictimVerdicts:
    """The verdicts of a record.

    A column for clean, every chain by its name, the union, and every attack that holds the victim's own source
    (`pretrained-neuron`, its control `random-sign`; under another threat than Linf `pretrained-neuron@renofeation`),
    where an example counts that is right on the clean image and flipped by no try: a share of all n, as a chain's.
    """
    bits: dict[str, Bits] = {CLEAN: record.clean}
    measured: dict[str, str] = {}
    for chain in record.chains:
        if chain.name in (*bits, UNION):
            raise InputError(f"record of {record.victim}: a second column {chain.name}")
        bits[chain.name] = chain.robust
        attacks = ", ".join(map(_attack_text, chain.attacks))
        measured[chain.name] = f"{chain.norm} {chain.eps}: " + " ".join(
            part for part in (attacks, chain.backend, chain.precision) if part
        )
    whole = union(record)
    if whole is not None:
        bits[UNION] = whole
        measured[UNION] = "; ".join(measured[norm] for norm in NORMS)
    for crafted in record.crafted:
        id = crafted.attack["id"]
        name = f"{id}@{crafted.norm}" if crafted.norm != "Linf" else id
        # A control that was made of a set (`of`) would need that set's name as well.
        if crafted.source != record.source or name in bits or "of" in crafted.attack:
            continue
        bits[name] = Bits.of_number(record.clean.number & ~crafted.flipped(), record.n)
        measured[name] = f"{crafted.norm} {crafted.eps}: {_attack_text(crafted.attack)}, made with {crafted.source}"
    return VictimVerdicts(
        record.victim,
        record.seed,
        f"fingerprint {record.data_fingerprint}",
        {name: np.array(one.list(), dtype=np.bool_) for name, one in bits.items()},
        measured,
        record.target_dataset,
    )


def _attack_text(attack: dict[str, Any]) -> str:
    """`pgd:k=100`, of whatever a record holds."""
    return ":".join([str(attack.get("id")), *(f"{name}={value}" for name, value in attack.items() if name != "id")])


@dataclass(frozen=True)
class VictimComparison:
    """All pairs of two or more victims, on the same examples. `print(comparison)` is tables.

    `victims`: their names in the order given. `pairs`: a VictimPair for each pair, column and seed, and `pooled` over
    the seeds that all have. `n` examples; `notes`: what is to be known about them, a line each.
    """

    victims: tuple[str, ...]
    n: int
    examples: str
    pairs: tuple[VictimPair, ...]
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """A row per pair, column and seed, with the fields of VictimPair; rates, differences and ends are shares."""
        import pandas as pd

        return pd.DataFrame([asdict(pair) for pair in self.pairs], columns=list(VictimPair.__dataclass_fields__))

    def to_json(self) -> str:
        """Everything, with the names of test and interval, as JSON text."""
        values = {
            "victims": self.victims,
            "n": self.n,
            "examples": self.examples,
            "test": TEST,
            "interval": INTERVAL,
            "notes": self.notes,
            "pairs": [asdict(pair) for pair in self.pairs],
        }
        return json.dumps(values, indent=1)

    def __str__(self) -> str:
        """Two victims: a line per column and seed. More: a matrix per column, and `pairs_text` has every pair."""
        text = self.pairs_text() if len(self.victims) == 2 else "\n\n".join(map(self.matrix, self._columns()))
        lines = [f"n = {self.n} examples ({self.examples})", *self.notes]
        lines += [f"test: {TEST}", f"interval: {INTERVAL}"]
        return f"{text}\n\n" + "\n".join(lines)

    def pairs_text(self) -> str:
        """A line for each pair, column and seed."""
        header = ["column", "seed", "first", "second", "first %", "second %", "difference", "95 % interval",
                  "only first", "only second", "p", "p Holm"]  # fmt: skip
        left, lines = 4, [header]
        for one in self.pairs:
            lines.append(
                [
                    one.column,
                    one.seed,
                    one.first,
                    one.second,
                    f"{100 * one.first_rate:.2f}",
                    f"{100 * one.second_rate:.2f}",
                    _points(one.difference),
                    f"[{_points(one.low)}, {_points(one.high)}]",
                    str(one.only_first),
                    str(one.only_second),
                    p_text(one.p),
                    p_text(one.p_holm),
                ]
            )
        if len(self.victims) == 2:
            # One pair has one family.
            lines = [line[:-1] for line in lines]
        return aligned(lines, left)

    def matrix(self, column: str) -> str:
        """All pairs of a column, pooled over seeds where there are several."""
        pairs = [pair for pair in self.pairs if pair.column == column]
        if not pairs:
            raise InputError(registry.unknown("column", column, self._columns()))
        shown = pairs[-1].seed
        by_names = {(pair.first, pair.second): pair for pair in pairs if pair.seed == shown}
        rates = {name: rate for pair in by_names.values() for name, rate in
                 ((pair.first, pair.first_rate), (pair.second, pair.second_rate))}  # fmt: skip
        lines = [["", "", "%", *(f"({place})" for place in range(1, len(self.victims) + 1))]]
        for row, name in enumerate(self.victims):
            cells = [f"({row + 1})", name, f"{100 * rates[name]:.2f}"]
            for other in range(len(self.victims)):
                first, second = sorted((row, other))
                pair = by_names.get((self.victims[first], self.victims[second]))
                if pair is None:
                    cells.append("")
                else:
                    cells.append(p_text(pair.p_holm) if row < other else _points(-pair.difference))
            lines.append(cells)
        seeds = max(pair.seeds for pair in by_names.values())
        where = f"mean of {seeds} seeds" if shown == POOLED else f"seed {shown}"
        title = f"{column} ({where}): below the diagonal row less column in points, above it p, Holm-corrected"
        return f"{title}\n{aligned(lines, 2)}"

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(pair.column for pair in self.pairs))


def _points(share: float) -> str:
    # Of -0.0 the sign is no result.
    return f"{100 * share + 0.0:+.2f}"


def p_text(p: float) -> str:
    """`.012`, `<.001`."""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def aligned(lines: Sequence[Sequence[str]], left: int) -> str:
    """A table of text; columns from `left` on are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def compare(
    victims: Sequence[VictimSeries], columns: Sequence[str] | None = None, seed: int | None = None
) -> VictimComparison:
    """All pairs of two or more victims.

    `columns`: names, by default clean, the norms and the union, those that all victims have. Victims of one seed each
    are compared whatever their seeds are; of others those seeds count that all have, or `seed` alone.

    InputError for other examples, a column or a seed that a victim does not have, fewer than two victims.
    """
    if not 2 <= len(victims) <= MOST_VICTIMS:
        raise InputError(f"{_counted(len(victims))} to compare: name 2 to {MOST_VICTIMS}")
    chosen, seeds = _seeds(victims, seed)
    _check_examples([one for series in chosen for one in series])
    first = chosen[0][0]
    series = [VictimSeries(one.name, dict(enumerate(own))) for one, own in zip(victims, chosen, strict=True)]
    names, notes = _columns(series, columns)
    notes += _measured_notes(series, names)
    fewer = {len(first.columns[name]): name for name in names if len(first.columns[name]) < first.n}
    notes += [f"the chains attacked the first {n} examples: their columns are of these" for n in fewer]
    if seed is None:
        notes += _seed_notes(victims, seeds)
    pairs = [pair for name in names for pair in _pairs(series, name, seeds)]
    return VictimComparison(tuple(one.name for one in victims), first.n, first.described, tuple(pairs), tuple(notes))


def _counted(count: int) -> str:
    return "1 victim" if count == 1 else f"{count} victims"


def _seeds(victims: Sequence[VictimSeries], seed: int | None) -> tuple[list[list[VictimVerdicts]], list[str]]:
    """(the verdicts of each victim by seed, the names of the seeds)."""
    if seed is not None:
        for one in victims:
            if seed not in one.seeds:
                raise InputError(f"{one.name} has no seed {seed}: it has {', '.join(map(str, sorted(one.seeds)))}")
        return [[one.seeds[seed]] for one in victims], [str(seed)]
    if all(len(one.seeds) == 1 for one in victims):
        own = list(dict.fromkeys(str(next(iter(one.seeds))) for one in victims))
        return [list(one.seeds.values()) for one in victims], ["/".join(own)]
    common = sorted(set.intersection(*(set(one.seeds) for one in victims)))
    if not common:
        listed = "; ".join(f"{one.name}: {', '.join(map(str, sorted(one.seeds)))}" for one in victims[:4])
        raise InputError(f"the victims have no seed in common ({listed})")
    return [[one.seeds[seed] for seed in common] for one in victims], list(map(str, common))


def _check_examples(verdicts: Sequence[VictimVerdicts]) -> None:
    """InputError where the examples are not the same, in the same order."""
    first = next((one for one in verdicts if one.dataset), verdicts[0])
    for one in verdicts:
        same_data = first.dataset == one.dataset or not one.dataset
        common = first.columns.keys() & one.columns.keys()
        same_lengths = all(len(one.columns[name]) == len(first.columns[name]) for name in common)
        if (one.n, one.examples) != (first.n, first.examples) or not same_data or not same_lengths:
            raise InputError(
                f"{first.victim} (n={first.n}, {first.described}) and {one.victim} (n={one.n}, {one.described}) were "
                "not attacked on the same examples in the same order: only paired verdicts can be compared"
            )


def _columns(victims: Sequence[VictimSeries], wanted: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """(the columns to compare, notes). InputError for one that a victim does not have."""
    common = [name for name in victims[0].columns if all(name in one.columns for one in victims[1:])]
    if wanted is not None:
        for name in wanted:
            for one in victims:
                if name not in one.columns:
                    raise InputError(f"{one.name}: {registry.unknown('column', name, one.columns)}")
        if not wanted or len(set(wanted)) != len(wanted):
            raise InputError("name at least one column, each once")
        return list(wanted), []
    names = [name for name in DEFAULT if name in common]
    if not names:
        raise InputError(
            f"the victims have none of {', '.join(DEFAULT)} in common; they all have: {', '.join(common) or 'nothing'}"
        )
    partly = [name for name in DEFAULT if name not in common and any(name in one.columns for one in victims)]
    notes = [f"left out, because a victim lacks it: {', '.join(partly)}"] if partly else []
    further = [name for name in common if name not in names]
    return names, [*notes, *([f"further columns: {', '.join(further)}"] if further else [])]


def _seed_notes(victims: Sequence[VictimSeries], seeds: Sequence[str]) -> list[str]:
    extra = [one.name for one in victims if len(one.seeds) > len(seeds)]
    return [f"seeds {', '.join(seeds)} are compared; there are more of {', '.join(extra)}"] if extra else []


def _measured_notes(victims: Sequence[VictimSeries], columns: Sequence[str]) -> list[str]:
    """A line for every column that was measured in several ways: the difference is then also one of the attacks."""
    notes = []
    for column in columns:
        ways: dict[str, str] = {}
        for one in victims:
            for verdicts in one.seeds.values():
                if column in verdicts.measured:
                    # The sources of two seeds are two networks of one kind.
                    way = verdicts.measured[column].replace(f"-s{verdicts.seed}", "")
                    ways.setdefault(way, one.name)
        if column != UNION and len(ways) > 1:
            listed = " | ".join(f"{name}: {way}" for way, name in list(ways.items())[:3])
            notes.append(f"{column} was not measured in the same way: {listed}")
    return notes


def _pairs(victims: Sequence[VictimSeries], column: str, seeds: Sequence[str]) -> list[VictimPair]:
    """All pairs of a column, seed by seed, then pooled."""
    verdicts = [np.stack([one.columns[column] for one in series.seeds.values()]) for series in victims]
    places = [(name, [place]) for place, name in enumerate(seeds)]
    if len(seeds) > 1:
        places.append((POOLED, list(range(len(seeds)))))
    found = []
    for name, at in places:
        indices = list(combinations(range(len(victims)), 2))
        results = [paired(verdicts[a][at], verdicts[b][at]) for a, b in indices]
        adjusted = holm([result.p for result in results])
        for (a, b), result, p_holm in zip(indices, results, adjusted, strict=True):
            found.append(
                VictimPair(
                    column=column,
                    seed=name,
                    seeds=len(at),
                    first=victims[a].name,
                    second=victims[b].name,
                    n=verdicts[a].shape[1],
                    first_rate=float(verdicts[a][at].mean()),
                    second_rate=float(verdicts[b][at].mean()),
                    difference=result.difference,
                    low=result.low,
                    high=result.high,
                    only_first=result.only_first,
                    only_second=result.only_second,
                    p=result.p,
                    p_holm=p_holm,
                )
            )
    return found

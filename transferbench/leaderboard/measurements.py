"""The context of a leaderboard row: what its columns compute their cells from."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce
from operator import and_

from transferbench.base.ids import chain_at
from transferbench.base.specifications import NORMS, Epsilon, Norm, ThreatName
from transferbench.leaderboard.corruptions import CorruptionScores, scores
from transferbench.leaderboard.rates import Rate
from transferbench.leaderboard.statistics import expected
from transferbench.results.records import Bits, Record


def union(record: Record) -> Bits | None:
    """Survivors of all three norms' chains, example by example; None unless all three were measured."""
    chains = [chain for norm in NORMS if (chain := record.chain(norm)) is not None]
    if len(chains) < len(NORMS):
        return None
    return Bits.of_number(reduce(and_, (chain.robust.number for chain in chains)), record.n_chains)


def curve(record: Record, norm: Norm) -> list[tuple[Fraction, float]]:
    """(radius, share robust) of a norm on the examples of the chains, ascending: radius 0 is clean, then the chain at
    every radius it was run at."""
    chains = [chain for chain in record.chains if chain.name in (norm, chain_at(norm, chain.eps))]
    points = {Epsilon.parse(chain.eps).value: chain.robust.count / chain.robust.n for chain in chains}
    clean = record.clean_of_chains
    return [(Fraction(0), clean.count / clean.n), *sorted(points.items())]


@dataclass(frozen=True)
class Measurements:
    """A record, the measurements of the source it was fine-tuned from, and its rank.

    `source` is None where the source has no record, `rank` where the record lacks a measurement of its board.
    """

    record: Record
    source: Measurements | None = None
    rank: int | None = None

    @cached_property
    def clean(self) -> Rate:
        return Rate(self.record.clean.count, self.record.n)

    @cached_property
    def robust(self) -> dict[str, Rate]:
        """Accuracy under attack by the name of the chain."""
        return {chain.name: Rate(chain.robust.count, chain.robust.n) for chain in self.record.chains}

    @cached_property
    def union(self) -> Rate | None:
        bits = union(self.record)
        return None if bits is None else Rate(bits.count, bits.n)

    @cached_property
    def corruptions(self) -> dict[str, CorruptionScores]:
        """The scores of the benchmarks of corrupted images by their threat."""
        measured = {one.threat: scores(self.record, one.threat) for one in self.record.corruptions}
        return {threat: found for threat, found in measured.items() if found is not None}

    def expected(self, norm: Norm) -> float | None:
        """Mean robust accuracy over radii up to the norm's own; None without a curve."""
        chain = self.record.chain(norm)
        if chain is None:
            return None
        furthest = Epsilon.parse(chain.eps).value
        points = [(radius, share) for radius, share in curve(self.record, norm) if radius <= furthest]
        return expected(points) if len(points) > 2 else None

    def flipped(self, attack: str, threat: ThreatName = "Linf") -> Rate | None:
        """Clean-correct examples that any try of an attack with the victim's own source flips."""
        crafted = self.record.crafted_set(attack, threat=threat)
        return None if crafted is None else Rate(crafted.any_of(), self.clean.successes)

    def matched_noise(self, attack: str, threat: ThreatName = "Linf") -> Rate | None:
        """`noise` over as many draws as the attack has tries; None unless both were measured."""
        crafted, control = self.record.crafted_set(attack, threat=threat), self.record.control(threat)
        if crafted is None or control is None:
            return None
        return Rate(control.any_of(len(crafted.flips)), self.clean.successes)

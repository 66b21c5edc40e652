"""What `eval --source` prints: every attack that holds the source alone beside its controls."""

from __future__ import annotations

from itertools import groupby

from transferbench.base.ids import RENOFEATION
from transferbench.leaderboard.source_only import ALL, WHITE_BOX, Comparison, comparisons
from transferbench.leaderboard.statistics import wilson
from transferbench.results.records import Record


def lines(record: Record) -> list[str]:
    """For each threat a heading, a line per attack, and what secrecy buys; nothing without a clean-correct example."""
    found = [one for one in comparisons(record) if one.correct]
    text: list[str] = []
    for norm, of_norm in groupby(found, key=lambda one: one.norm):
        several = list(of_norm)
        eps = next(one.eps for one in record.crafted if one.norm == norm)
        text.append(
            f"source   {norm} {eps} at {record.images}: what an attacker who holds only {record.source} fools of the "
            f"{several[0].correct} examples that were correct"
        )
        for _, of_attack in groupby(several, key=lambda one: one.attack.name):
            text += _attack(list(of_attack))
        # The last attack is all of them together, or the only one.
        text += [_secrecy(one) for one in several if one.other.name == WHITE_BOX][-1:]
    return text


def _attack(several: list[Comparison]) -> list[str]:
    attack, correct = several[0].attack, several[0].correct
    name = "all of them" if attack.name == ALL else attack.name
    how = f"any of {attack.tries}" if attack.tries > 1 else ""
    controls = [one for one in several if one.other.name != WHITE_BOX]
    beside = "; ".join(f"{one.other.name} {100 * one.other.bits.bit_count() / correct:.0f} %" for one in controls)
    text = [f"         {name:<20}{how:<10}{_rate(attack.bits.bit_count(), correct)}  (controls: {beside})"]
    if several[0].norm == RENOFEATION and attack.tries == 1:
        share = 100 * attack.bits.bit_count() / correct
        text.append(f"         Attack Success Rate, as Renofeation's evaluator prints it: {share:.2f}")
    return text


def _secrecy(white: Comparison) -> str:
    assert white.difference is not None
    value, low, high = white.difference
    rate = _rate(white.other.bits.bit_count(), white.correct)
    return (
        f"         white-box at that radius {rate}: secrecy of the weights buys {-value:.0f} points "
        f"[{-high:.0f}, {-low:.0f}]"
    )


def _rate(count: int, correct: int) -> str:
    low, high = wilson(count, correct)
    return f"{count:>4} {100 * count / correct:6.2f} %  [{100 * low:.0f}, {100 * high:.0f}]"

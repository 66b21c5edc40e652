"""What `eval --source` prints: every attack that holds the source alone beside its controls, and what a few queries
add."""

from __future__ import annotations

from itertools import groupby

from transferbench.base.ids import RANDOM_SIGN, RENOFEATION
from transferbench.leaderboard.queries import Asked, asked
from transferbench.leaderboard.source_only import ALL, WHITE_BOX, Comparison, comparisons
from transferbench.leaderboard.statistics import wilson
from transferbench.results.records import Record


def lines(record: Record) -> list[str]:
    """For each threat a heading, a line per attack, and what secrecy buys, then the attacks with queries; nothing
    without a clean-correct example."""
    found = [one for one in comparisons(record) if one.correct]
    text: list[str] = []
    for norm, of_norm in groupby(found, key=lambda one: one.norm):
        several = list(of_norm)
        eps = next(one.eps for one in record.crafted if one.norm == norm)
        text.append(
            f"source   {norm} {eps} at {record.images}: what an attacker who holds only {several[0].source} fools of "
            f"the {several[0].correct} examples that were correct"
        )
        for _, of_attack in groupby(several, key=lambda one: one.attack.name):
            text += _attack(list(of_attack))
        # The last attack is all of them together, or the only one.
        text += [_secrecy(one) for one in several if one.other.name == WHITE_BOX][-1:]
    return text + _queried([one for one in asked(record) if one.correct])


def _queried(several: list[Asked]) -> list[str]:
    """For each query attack its rates within so many queries, in brackets its control's."""
    text = []
    for _, of_attack in groupby(several, key=lambda one: (one.attack.attack["id"], one.attack.source)):
        within = list(of_attack)
        last = within[-1]
        shares = ", ".join(f"{one.within}: {_share(one.fooled, one.correct)}{_beside(one)}" for one in within)
        start = f" from {last.attack.start}" if last.attack.start else ""
        text.append(
            f"queries  {last.attack.norm} {last.attack.eps}: {last.attack.attack['id']}{start}, of the {last.correct} "
            f"within {shares}"
        )
        if last.difference is not None:
            value, low, high = map(round, last.difference)
            text.append(f"         less its control, {last.within}: {value} points [{low}, {high}]")
    return text


def _beside(one: Asked) -> str:
    if one.control is None:
        return ""
    return f" (control {_share(one.control.fooled(one.within).bit_count(), one.correct)})"


def _share(count: int, correct: int) -> str:
    return f"{100 * count / correct:.0f} %"


def _attack(several: list[Comparison]) -> list[str]:
    attack, correct = several[0].attack, several[0].correct
    name = "all of them" if attack.name == ALL else attack.name
    how = f"any of {attack.tries}" if attack.tries > 1 else ""
    controls = [one for one in several if one.other.name != WHITE_BOX]
    beside = "; ".join(f"{one.other.name} {100 * one.other.bits.bit_count() / correct:.0f} %" for one in controls)
    if RANDOM_SIGN not in [one.other.name for one in controls]:
        beside = "; ".join([*filter(None, [beside]), f"{RANDOM_SIGN} has fewer than {attack.tries} draws"])
    text = [f"         {name:<20}{how:<10}{_rate(attack.bits.bit_count(), correct)}  (controls: {beside})"]
    if several[0].norm == RENOFEATION and attack.tries == 1:
        share = 100 * attack.bits.bit_count() / correct
        text.append(f"         Attack Success Rate, as Renofeation's evaluator prints it: {share:.2f}")
    return text


def _secrecy(white: Comparison) -> str:
    assert white.difference is not None
    # Whole numbers: there is no -0.
    value, low, high = map(round, white.difference)
    rate = _rate(white.other.bits.bit_count(), white.correct)
    return f"         white-box at that radius {rate}: secrecy of the weights buys {-value} points [{-high}, {-low}]"


def _rate(count: int, correct: int) -> str:
    low, high = wilson(count, correct)
    return f"{count:>4} {100 * count / correct:6.2f} %  [{100 * low:.0f}, {100 * high:.0f}]"

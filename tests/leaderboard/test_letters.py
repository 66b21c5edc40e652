"""The compact letter display, against its definition on all small cases and on drawn ones."""

from __future__ import annotations

import random
import re
from itertools import combinations

from transferbench.leaderboard.letters import letters


def groups(text: str) -> set[str]:
    return set(re.findall(r"[a-z]\d*", text))


def check(count: int, different: set[tuple[int, int]]) -> None:
    shown = [groups(text) for text in letters(count, sorted(different))]
    assert all(shown), "every row has a letter"
    for pair in combinations(range(count), 2):
        assert bool(shown[pair[0]] & shown[pair[1]]) == (pair not in different), pair
    # No letter can be left out: each is the only one that some pair, or some row, shares.
    for letter in set().union(*shown):
        others = [one - {letter} for one in shown]
        pairs = [(a, b) for a, b in combinations(range(count), 2) if letter in shown[a] & shown[b]]
        assert any(not others[a] & others[b] for a, b in pairs) or any(not one for one in others)


def test_every_pattern_of_four_rows() -> None:
    pairs = list(combinations(range(4), 2))
    for bits in range(2 ** len(pairs)):
        check(4, {pair for place, pair in enumerate(pairs) if bits >> place & 1})


def test_drawn_patterns() -> None:
    draw = random.Random(5)
    for count in (8, 14, 20):
        check(count, {pair for pair in combinations(range(count), 2) if draw.random() < 0.5})


def test_the_best_row_has_the_first_letter() -> None:
    assert letters(3, [(0, 2)]) == ["a", "ab", "b"]
    assert letters(3, []) == ["a", "a", "a"]
    assert letters(0, []) == []


def test_more_groups_than_the_alphabet_has() -> None:
    shown = letters(30, combinations(range(30), 2))
    assert (shown[0], shown[25], shown[26], shown[29]) == ("a", "z", "a1", "d1")

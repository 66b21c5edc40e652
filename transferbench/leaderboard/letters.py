"""Compact letter display: rows that share a letter are not told apart (Piepho 2004: insert, absorb, sweep).

Piepho, "An algorithm for a letter-based representation of all-pairwise comparisons", J. Comput. Graph. Stat. 13 (2004).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import ascii_lowercase


def letters(count: int, different: Iterable[tuple[int, int]]) -> list[str]:
    """The letters of each of `count` rows, best row first: two rows share one exactly where their pair is not among the
    `different` ones. After `z` come `a1`, `b1` and so on; of several letters each row has them in order."""
    columns: list[frozenset[int]] = [frozenset(range(count))]
    for first, second in different:
        split = [column for column in columns if {first, second} <= column]
        kept = [column for column in columns if not {first, second} <= column]
        candidates = [*kept, *(column - {lost} for column in split for lost in (first, second))]
        columns = _absorbed(candidates)
    columns = sorted(_swept(columns), key=sorted)
    names = [_name(place) for place in range(len(columns))]
    return ["".join(name for name, column in zip(names, columns, strict=True) if row in column) for row in range(count)]


def _absorbed(columns: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Without those that another one holds."""
    distinct = list(dict.fromkeys(columns))
    return [column for column in distinct if not any(column < other for other in distinct)]


def _swept(columns: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Without those whose rows and pairs of rows all lie in others."""
    kept = list(columns)
    for column in columns:
        others = [other for other in kept if other is not column]
        shared = [(a, b) for a in column for b in column]
        if all(any(a in other and b in other for other in others) for a, b in shared):
            kept = others
    return kept


def _name(place: int) -> str:
    again, letter = divmod(place, len(ascii_lowercase))
    return ascii_lowercase[letter] + (str(again) if again else "")

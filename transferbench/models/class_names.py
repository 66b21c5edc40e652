"""Compares the class names of a data set with those on a model's card: the same classes in the same order?"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from transferbench.base.spelling import composed, number


def first_difference(card: Sequence[str], dataset: Sequence[str]) -> int | None:
    """The first label at which two equally long lists of names contradict each other, or None.

    Names are compared without case and separators, numbers by value. A name that is only its own label (`3` at label 3)
    is no name and fits any other, unless that other one is a name of the first list too: the folder `10` at label 2
    contradicts a card with the classes `0`, `1`, `2`, ..., `10`. A numbering from 0 fits one from 1.
    """
    own, other = _comparable(card, dataset)
    if _is_numbering(own) and _is_numbering(other):
        return None
    for label, (mine, theirs) in enumerate(zip(own, other, strict=True)):
        unnamed = (mine == str(label) and theirs not in own) or (theirs == str(label) and mine not in other)
        if mine != theirs and not unnamed:
            return label
    return None


def same_classes(own: Sequence[str], other: Sequence[str]) -> bool | None:
    """Whether two lists name the same classes in the same order; None where both only number them."""
    mine, theirs = _comparable(own, other)
    if _is_numbering(mine) and _is_numbering(theirs):
        return None if len(mine) == len(theirs) else False
    return mine == theirs


def _comparable(*lists: Sequence[str]) -> tuple[list[str], ...]:
    """The lists in the loosest form that keeps the names of every list apart: `C++` and `C#` are not both `c`."""
    forms: tuple[Callable[[str], str], ...] = (_words, lambda name: composed(name).casefold())
    for form in forms:
        loose = tuple([form(name) for name in names] for names in lists)
        if all("" not in names for names in loose) and all(
            len(set(names)) == len(set(given)) for names, given in zip(loose, lists, strict=True)
        ):
            return loose
    return tuple([composed(name) for name in names] for names in lists)


def _words(name: str) -> str:
    """The name without case and separators; of a number its value, so that `007` is `7`."""
    value = number(name)
    return str(value) if value is not None else re.sub(r"[\W_]+", " ", composed(name).casefold()).strip()


def _is_numbering(names: Sequence[str]) -> bool:
    """Whether the names are 0, 1, ... or 1, 2, ..."""
    return list(names) in ([str(k + first) for k in range(len(names))] for first in (0, 1))

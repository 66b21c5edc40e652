"""The order of class names that come from folders or files, and with it the labels.

Names that are all plain non-negative integers are ordered by their value (0, 1, 2, ..., 10), zero-padded or not. All
others are in the order of their code points, torchvision's ImageFolder order: `class_10` comes before `class_2`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from transferbench.base.errors import InputError
from transferbench.base.spelling import number


def ordered(names: Iterable[str]) -> list[str]:
    """The names in label order. InputError where two of them are one number (`7` and `007`)."""
    by_text = sorted(names)
    values = [number(name) for name in by_text]
    if None in values:
        return by_text
    by_value: dict[int, str] = {}
    for value, name in zip(values, by_text, strict=True):
        assert value is not None
        if value in by_value:
            raise InputError(f"classes {by_value[value]!r} and {name!r} are the same number: rename one of them")
        by_value[value] = name
    return [name for _, name in sorted(by_value.items())]


def note(names: Sequence[str]) -> str:
    """A line about names in label order, where that is not the order of text; else empty."""
    if list(names) == sorted(names):
        return ""
    shown = names if len(names) <= 4 else (*names[:3], "...", names[-1])
    return f"class names are numbers, labels follow their values: {', '.join(shown)}"

"""Whole numbers from a caller: Python's or numpy's integers, nothing that only looks like one."""

from __future__ import annotations

from numbers import Integral

from transferbench.base.errors import InputError


def whole_number(name: str, value: object, at_least: int | None = None) -> int:
    """The value as an int. InputError for a bool, a float, text or None, and below `at_least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name}={value!r} is not a whole number")
    number = int(value)
    if at_least is not None and number < at_least:
        raise InputError(f"{name}={number} must be at least {at_least}")
    return number

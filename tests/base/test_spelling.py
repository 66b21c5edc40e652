"""Spellings of one name."""

from __future__ import annotations

import pytest

from transferbench.base.spelling import composed, number


def test_a_name_of_macos_is_composed() -> None:
    assert composed("cafe\u0301") == composed("caf\u00e9") == "caf\u00e9"


@pytest.mark.parametrize(
    ("name", "value"),
    [("7", 7), ("007", 7), ("0", 0), ("", None), ("-1", None), ("1.0", None), ("²", None), ("٣", None), ("1\n", None)],
)
def test_plain_numbers_have_a_value(name: str, value: int | None) -> None:
    assert number(name) == value

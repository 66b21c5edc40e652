"""The order of class names that come from folders or files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferbench.base.errors import InputError
from transferbench.data import class_order


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([str(k) for k in range(12)], [str(k) for k in range(12)]),
        (["010", "002", "1", "00"], ["00", "1", "002", "010"]),
        (["100", "99", "1000"], ["99", "100", "1000"]),
        # One name that is no plain number, and the order is ImageFolder's.
        (["class_1", "class_10", "class_2"], ["class_1", "class_10", "class_2"]),
        (["10", "2", "a"], ["10", "2", "a"]),
        (["10", "2", "-1"], ["-1", "10", "2"]),
        (["10", "2", "1.5"], ["1.5", "10", "2"]),
        (["10", "2", "²"], ["10", "2", "²"]),
        (["Zebra", "ant", "Ant"], ["Ant", "Zebra", "ant"]),
    ],
)
def test_numbers_are_ordered_by_value_and_all_else_as_text(names: list[str], expected: list[str]) -> None:
    assert class_order.ordered(names) == expected
    assert class_order.ordered(reversed(names)) == expected


@given(st.sets(st.text(alphabet="abcXYZ_ 0123456789", min_size=1, max_size=5)).filter(lambda n: n != set()))
def test_names_that_are_not_all_numbers_have_imagefolders_order(names: set[str]) -> None:
    if not all(name.isdigit() for name in names):
        assert class_order.ordered(names) == sorted(names)


def test_one_number_in_two_spellings_is_refused() -> None:
    with pytest.raises(InputError, match="classes '007' and '7' are the same number"):
        class_order.ordered(["7", "8", "007"])


def test_an_order_that_is_not_that_of_text_is_said() -> None:
    assert class_order.note(["ant", "bee"]) == class_order.note(["00", "01", "10"]) == ""
    names = class_order.ordered(map(str, range(12)))
    assert class_order.note(names) == "class names are numbers, labels follow their values: 0, 1, 2, ..., 11"
    assert class_order.note(["2", "10"]) == "class names are numbers, labels follow their values: 2, 10"

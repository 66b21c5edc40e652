"""Verdict bits as hex and as whole numbers hold the same examples."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transferbench.base.bits import number_of, pack_bits, pack_number, unpack_bits, unpack_number
from transferbench.results.records import Bits, CraftedRecord

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=70)


@given(PAIRS)
def test_joining_and_counting_numbers_is_joining_and_counting_examples(pairs: list[tuple[bool, bool]]) -> None:
    n, first, second = len(pairs), [a for a, _ in pairs], [b for _, b in pairs]
    a, b = number_of(first), number_of(second)
    assert unpack_bits(pack_number(a & b, n), n) == [x and y for x, y in pairs]
    assert unpack_bits(pack_number(a | b, n), n) == [x or y for x, y in pairs]
    assert Bits.of(first).count == sum(first)
    assert Bits.of(first).number == a == unpack_number(pack_bits(first), n)
    crafted = CraftedRecord(
        source="s", norm="Linf", eps="0.1", attack={"id": "x"}, flips=[Bits.of(first), Bits.of(second)], jobs=[]
    )
    assert (crafted.any_of(), crafted.any_of(1)) == (sum(x or y for x, y in pairs), sum(first))


def test_bits_behind_the_last_example_are_no_examples() -> None:
    """The last hex digit may have more bits than there are examples."""
    assert Bits(n=5, hex="ff").count == 5
    assert Bits(n=5, hex="ff").list() == [True] * 5
    assert pack_bits([True] * 5) == "f8"

"""queries.csv: success within so many queries, beside the same search without the source."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from support.records import N, first, record

from transferbench.leaderboard import build, queries
from transferbench.leaderboard.statistics import paired_difference
from transferbench.results.records import Bits, QueriedRecord, Record


def asked(numbers: list[int], is_control: bool = False, budget: int = 60) -> QueriedRecord:
    params = {"directions": "random"} if is_control else {}
    return QueriedRecord(
        source="src-s0",
        norm="Linf",
        eps="0.1",
        attack={"id": "simba-ods", **params},
        is_control=is_control,
        budget=budget,
        queries=[*numbers, *[-1] * (36 - len(numbers)), *[0] * (N - 36)],
        jobs=[],
    )


@pytest.fixture
def victim() -> Record:
    """36 of 40 examples are correct: the attack fools the first nine, the control three of these and one more."""
    attack = asked([1, 1, 7, 10, 11, 30, 50, 51, 60])
    control = asked([1, -1, 9, -1, -1, 60, -1, -1, -1, 44], is_control=True)
    return record(queried=[attack, control], clean=Bits.of(first(36)), chains=[], crafted=[])


def test_rates_are_counted_within_each_number_of_queries(victim: Record) -> None:
    rows = {row["queries"]: row for row in queries.rows([victim])}
    assert list(rows) == [1, 10, 50], "numbers beyond the budget of 60 are not told"
    assert [rows[within]["fooled"] for within in rows] == [2, 4, 7]
    assert rows[10]["rate"] == f"{100 * 4 / 36:.2f}"
    assert rows[10]["control_rate"] == f"{100 * 2 / 36:.2f}"
    # Within 50: seven by the attack, of which two also by the control, which has one of its own.
    value, low, high = (100 * end for end in paired_difference(5, 1, 36))
    assert rows[50]["difference"] == f"{value:.2f}"
    assert (rows[50]["difference_low"], rows[50]["difference_high"]) == (f"{low:.2f}", f"{high:.2f}")


def test_the_section_and_the_file_are_there_where_something_was_asked(victim: Record) -> None:
    text = queries.markdown([victim])
    assert f"| {100 * 2 / 36:.1f} ({100 * 1 / 36:.1f}) |" in text
    assert "within 50" in text
    assert "queries.csv" in build.render([victim])
    assert "queries.csv" not in build.render([record()])
    assert queries.markdown([record()]) == ""


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ([61], "at most 60 queries"),
        ([-2], "greater than or equal to -1"),
        ([1] * 37, "wrong on clean"),
    ],
)
def test_numbers_that_cannot_be_are_refused(numbers: list[int], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        record(queried=[asked(numbers[:36]) if len(numbers) < 37 else _beyond(asked([1]))], clean=Bits.of(first(36)))


def _beyond(one: QueriedRecord) -> QueriedRecord:
    return one.model_copy(update={"queries": [1] * N})

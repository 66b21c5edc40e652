"""image_files.csv: how many fooling points still fool as image files, beside their clean images saved likewise."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from support.records import N, chain, first, record

from transferbench.leaderboard import build, image_files
from transferbench.leaderboard.rows import leaderboard_rows
from transferbench.leaderboard.statistics import paired_difference, wilson
from transferbench.results.records import Bits, FileRecord, Record


def bits(*places: int) -> Bits:
    return Bits.of([place in places for place in range(N)])


@pytest.fixture
def victim() -> Record:
    """36 of 40 are correct, 30 robust: six are fooled, five still as 8-bit files and two as JPEG, where one of the
    clean images is misclassified as well."""
    files = [
        FileRecord(format="8bit", fooling=bits(30, 31, 32, 33, 34), control=bits()),
        FileRecord(format="jpeg90", fooling=bits(30, 31), control=bits(31)),
    ]
    chains = [chain("Linf", first(30)).model_copy(update={"files": files})]
    return record(clean=Bits.of(first(36)), chains=chains, crafted=[])


def test_rates_are_of_the_fooled_examples(victim: Record) -> None:
    eight_bits, jpeg = image_files.rows([victim])
    assert (eight_bits["fooled"], eight_bits["still_fooled"], eight_bits["control"]) == (6, 5, "0.00")
    assert (jpeg["still_fooling"], jpeg["control"]) == (f"{100 * 2 / 6:.2f}", f"{100 * 1 / 6:.2f}")
    low, high = wilson(2, 6)
    assert (jpeg["still_fooling_low"], jpeg["still_fooling_high"]) == (f"{100 * low:.2f}", f"{100 * high:.2f}")
    value, low, high = (100 * end for end in paired_difference(1, 0, 6))
    assert (jpeg["difference"], jpeg["difference_low"]) == (f"{value:.2f}", f"{low:.2f}")


def test_the_leaderboard_has_the_rates_and_leaves_columns_out_that_nothing_fills(victim: Record) -> None:
    (row,) = leaderboard_rows([victim])
    assert (row["linf_8bit"], row["linf_jpeg90"], row["l2_8bit"]) == (f"{100 * 5 / 6:.2f}", f"{100 * 2 / 6:.2f}", "")
    files = build.render([victim])
    header = files["leaderboard.csv"].splitlines()[0].split(",")
    assert "linf_jpeg90" in header
    assert "l2_jpeg90" not in header
    assert "| 33.3 (16.7) |" in files["leaderboard.md"]
    assert "image_files.csv" in files
    assert "image_files.csv" not in build.render([record()])


@pytest.mark.parametrize("place", [3, 38])
def test_a_file_cannot_fool_where_no_point_does(victim: Record, place: int) -> None:
    """Example 3 is robust, example 38 wrong on clean."""
    changed = victim.model_dump()
    changed["chains"][0]["files"][0]["fooling"] = bits(place).model_dump()
    with pytest.raises(ValidationError, match="without a fooling point"):
        Record.model_validate(changed)

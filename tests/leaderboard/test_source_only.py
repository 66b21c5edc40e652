"""source_only.csv: attacks beside their controls, another network and the white-box attack, on the same examples."""

from __future__ import annotations

import numpy as np
import pytest
from support.records import N, chain, crafted, first, record

from transferbench.cli import source_only_report
from transferbench.leaderboard import source_only
from transferbench.leaderboard.statistics import Z_95, paired_difference
from transferbench.results.records import Bits, CraftedRecord, QueriedRecord, Record


def test_the_difference_of_paired_rates_is_that_of_the_formula() -> None:
    """Bonett and Price 2012: the adjusted proportions are (f + 1) / (n + 2)."""
    first_alone, second_alone, n = 12, 3, 40
    p, q = 13 / 42, 4 / 42
    spread = Z_95 * np.sqrt((p + q - (p - q) ** 2) / 42)
    assert paired_difference(first_alone, second_alone, n) == pytest.approx((9 / 40, p - q - spread, p - q + spread))
    assert paired_difference(0, 0, 10)[0] == 0
    assert paired_difference(10, 0, 10)[2] == 1


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    for cells in ((0.5, 0.3, 0.1, 0.1), (0.9, 0.08, 0.01, 0.01), (0.2, 0.2, 0.2, 0.4)):
        counts = draw.multinomial(60, cells, size=2000)
        inside = 0
        for _, a, b, _ in counts:
            _, low, high = paired_difference(int(a), int(b), 60)
            inside += low <= cells[1] - cells[2] <= high
        assert inside / 2000 >= 0.93


def bits(places: range | list[int]) -> Bits:
    return Bits.of([place in places for place in range(N)])


def attack(id: str, flips: list[Bits], source: str = "src-s0", **params: object) -> CraftedRecord:
    return CraftedRecord(source=source, norm="Linf", eps="0.1", attack={"id": id, **params}, flips=flips, jobs=[])


@pytest.fixture
def victim() -> Record:
    white = chain("Linf", first(30))
    white = white.model_copy(update={"eps": "0.1", "robust": bits(range(25, 40)), "by_attack": [{"tries": 10}]})
    made = [
        attack("pretrained-neuron", [bits(range(0)), bits(range(10))]),
        attack("l4a", [bits(range(8, 12))]),
        attack("random-sign", [bits(range(2)), bits(range(4)), bits(range(5, 7))]),
        attack("shuffled", [bits(range(3)), bits(range(1))], of="pretrained-neuron"),
        attack("spectrum", [bits(range(9, 10))], of="l4a"),
        attack("pretrained-neuron", [bits(range(6)), bits(range(0))], source="other-s0"),
    ]
    return record(chains=[white], crafted=made, clean=bits(range(40)))


def test_every_attack_stands_beside_what_it_is_compared_with(victim: Record) -> None:
    rows = {(row["attack"], row["compared_with"]): row for row in source_only.rows([victim])}
    assert set(rows) == {
        ("pretrained-neuron", "random-sign"),
        ("pretrained-neuron", "shuffled"),
        ("pretrained-neuron", "made with other-s0"),
        ("pretrained-neuron", "white-box"),
        ("l4a", "random-sign"),
        ("l4a", "spectrum"),
        ("l4a", "white-box"),
        ("all", "random-sign"),
        ("all", "white-box"),
    }
    noise = rows["pretrained-neuron", "random-sign"]
    # Two tries are compared with the first two draws, which flip examples 0 to 3.
    assert (noise["flipped"], noise["asr"], noise["other_asr"], noise["difference"]) == (10, "25.00", "10.00", "15.00")
    assert rows["l4a", "random-sign"]["other_asr"] == "5.00", "one try, one draw"
    together = rows["all", "random-sign"]
    assert (together["tries"], together["flipped"], together["other_asr"]) == (3, 12, "15.00")
    assert rows["all", "white-box"]["difference"] == "-32.50", "12 of 40 less 25 of 40"
    low, high = (100 * end for end in paired_difference(0, 13, 40)[1:])
    assert rows["all", "white-box"]["difference_low"] == f"{low:.2f}"
    assert rows["all", "white-box"]["difference_high"] == f"{high:.2f}"
    elsewhere = rows["pretrained-neuron", "made with other-s0"]
    assert (elsewhere["other_asr"], elsewhere["difference"]) == ("15.00", "10.00")


def test_the_section_shows_secrecy_and_needs_enough_draws(victim: Record) -> None:
    text = source_only.markdown([victim])
    line = next(line for line in text.splitlines() if line.startswith("| lwf"))
    assert "25.0 | +15.0 [" in line
    assert "| 62.5 | +32.5 [" in line
    kept = [one for one in victim.crafted if one.attack["id"] != "random-sign"]
    fewer = [*kept, attack("random-sign", [bits(range(2)), bits(range(4))])]
    rows = source_only.rows([victim.model_copy(update={"crafted": fewer})])
    assert ("all", "random-sign") not in {(row["attack"], row["compared_with"]) for row in rows}
    assert source_only.markdown([record(crafted=[])]) == ""


def test_a_set_of_the_record_is_found_by_its_attack() -> None:
    made = [crafted("pretrained-neuron", 3), attack("shuffled", [bits(range(2))], of="pretrained-neuron")]
    whole = record(crafted=made)
    (control,) = whole.controls_of(whole.crafted[0])
    assert control.is_control
    assert not whole.crafted[0].is_control
    assert whole.controls_of(control) == []


def test_a_source_that_the_victims_card_does_not_name_is_compared_all_the_same(victim: Record) -> None:
    """`eval --source other` of a victim whose card names src-s0."""
    made = [one.model_copy(update={"source": "other"}) for one in victim.crafted[:-1]]
    given = victim.model_copy(update={"crafted": made})
    found, expected = source_only.rows([given]), source_only.rows([victim])
    assert {row["source"] for row in found} == {"other"}
    own = [row for row in expected if not str(row["compared_with"]).startswith("made with")]
    assert [{**row, "source": ""} for row in found] == [{**row, "source": ""} for row in own]
    assert "| other |" in source_only.markdown([given])


def test_the_report_says_when_there_are_too_few_draws_and_has_no_minus_zero(victim: Record) -> None:
    few = [one.model_copy(update={"flips": one.flips[:2]}) if one.attack["id"] == "random-sign" else one
           for one in victim.crafted]  # fmt: skip
    text = source_only_report.lines(victim.model_copy(update={"crafted": few}))
    assert next(line for line in text if "all of them" in line).endswith(
        "(controls: random-sign has fewer than 3 draws)"
    )
    even = chain("Linf", first(30)).model_copy(update={"eps": "0.1", "robust": bits(range(12, 40))})
    even = even.model_copy(update={"by_attack": [{"tries": 1}]})
    text = source_only_report.lines(victim.model_copy(update={"chains": [even]}))
    assert "buys 0 points" in text[-1], "12 examples fall to either"


def test_the_report_tells_of_queries(victim: Record) -> None:
    numbers = [1] * 4 + [7] * 6 + [-1] * 30 + [0] * (N - 40)
    other = [9] * 2 + [-1] * 38 + [0] * (N - 40)
    asked = [
        QueriedRecord(source="src-s0", norm="Linf", eps="0.1", attack={"id": "simba-ods"}, is_control=is_control,
                      budget=10, queries=told, jobs=[])
        for is_control, told in ((False, numbers), (True, other))
    ]  # fmt: skip
    text = "\n".join(source_only_report.lines(victim.model_copy(update={"queried": asked})))
    # 4 and 10 of 40; the control 0 and 2.
    assert "simba-ods, of the 40 within 1: 10 % (control 0 %), 10: 25 % (control 5 %)" in text
    assert "less its control, 10: 20 points [" in text

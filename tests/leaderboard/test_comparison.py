"""Victims compared pair by pair: counts, tests and intervals computed again, other examples refused."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests
from support.records import N, chain, crafted, first, record

from transferbench.base.errors import InputError
from transferbench.leaderboard.comparison import POOLED, VictimSeries, compare, verdicts_of
from transferbench.leaderboard.statistics import paired_difference
from transferbench.results.records import Record


def series(name: str, *records: Record) -> VictimSeries:
    return VictimSeries(name, {one.seed: verdicts_of(one) for one in records})


def of(name: str, robust: int, **changes: Any) -> VictimSeries:
    return series(name, record(f"{name}-s0", robust, **changes))


def test_a_pair_is_counted_from_its_bits() -> None:
    """20 and 27 of 40 survive Linf; the union of `record` loses the first four."""
    found = compare([of("a", 20), of("b", 27)])
    by_column = {pair.column: pair for pair in found.pairs}
    assert list(by_column) == ["clean", "Linf", "L2", "L1", "union"]
    linf = by_column["Linf"]
    assert (linf.first_rate, linf.second_rate, linf.only_first, linf.only_second) == (0.5, 27 / 40, 0, 7)
    assert linf.p == pytest.approx(binomtest(0, 7).pvalue)
    assert (linf.difference, linf.low, linf.high) == pytest.approx(paired_difference(0, 7, N))
    assert by_column["L1"].only_second == 7
    assert (by_column["union"].first_rate, by_column["union"].second_rate) == (16 / 40, 23 / 40)
    clean = by_column["clean"]
    assert (clean.p, clean.difference, clean.only_first) == (1, 0, 0)


def test_a_source_only_attack_counts_what_is_right_and_flipped_by_no_try() -> None:
    weak = of("b", 20, crafted=[crafted("pretrained-neuron", 30), crafted("pretrained-neuron", 40 - 6, "other-s0")])
    (pair,) = compare([of("a", 20), weak], ["pretrained-neuron"]).pairs
    assert (pair.first_rate, pair.second_rate) == ((36 - 9) / 40, (36 - 30) / 40)
    assert (pair.only_first, pair.only_second) == (21, 0)


def test_more_than_two_are_corrected_within_a_column() -> None:
    victims = [of(name, robust) for name, robust in (("a", 12), ("b", 20), ("c", 24), ("d", 32))]
    found = compare(victims, ["Linf", "union"])
    for column in ("Linf", "union"):
        pairs = [pair for pair in found.pairs if pair.column == column]
        assert [(pair.first, pair.second) for pair in pairs] == list(combinations("abcd", 2))
        assert [pair.p_holm for pair in pairs] == pytest.approx(multipletests([p.p for p in pairs], method="holm")[1])
    lines = found.matrix("Linf").splitlines()
    assert lines[2].split() == ["(1)", "a", "30.00", ".023", ".002", "<.001"]
    assert lines[3].split() == ["(2)", "b", "50.00", "+20.00", ".125", ".002"]
    assert str(found).count("below the diagonal") == 2
    with pytest.raises(InputError, match="did you mean 'Linf'"):
        found.matrix("linf")


def test_seeds_are_compared_one_by_one_and_together() -> None:
    a = series("a", *(record(f"a-s{seed}", 20, seed=seed) for seed in (0, 1, 2)))
    b = series("b", *(record(f"b-s{seed}", 22 + seed, seed=seed) for seed in (0, 1)))
    found = compare([a, b], ["Linf"])
    assert [(pair.seed, pair.seeds, pair.only_second) for pair in found.pairs] == [
        ("0", 1, 2),
        ("1", 1, 3),
        (POOLED, 2, 5),
    ]
    pooled = found.pairs[-1]
    assert (pooled.first_rate, pooled.second_rate) == (0.5, 0.5625)
    # The images are 20, 21 (in both seeds) and 22 (in one): of the eight signs two have a sum of +-5.
    assert pooled.p == pytest.approx(2 / 8)
    assert found.notes == ("seeds 0, 1 are compared; there are more of a",)
    (one,) = compare([a, b], ["Linf"], seed=1).pairs
    assert (one.seed, one.only_second) == ("1", 3)
    with pytest.raises(InputError, match="b has no seed 2: it has 0, 1"):
        compare([a, b], seed=2)
    alone = compare([series("a", record("a-s0", 20)), series("b", record("b-s4", 24, seed=4))], ["Linf"])
    assert [pair.seed for pair in alone.pairs] == ["0/4"]
    with pytest.raises(InputError, match="no seed in common"):
        compare([a, series("b", record("b-s7", seed=7), record("b-s8", seed=8))])


@pytest.mark.parametrize(
    "changes",
    [{"data_fingerprint": "e" * 32}, {"target_dataset": "letters"}],
    ids=["fingerprint", "data set"],
)
def test_other_examples_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(InputError, match="were not attacked on the same examples in the same order"):
        compare([of("a", 20), of("b", 20, **changes)])


def test_columns_are_named_or_those_that_all_have() -> None:
    part = of("b", 20, chains=[chain("Linf", first(25))], crafted=[])
    found = compare([of("a", 20), part])
    assert [pair.column for pair in found.pairs] == ["clean", "Linf"]
    assert "left out, because a victim lacks it: L2, L1, union" in found.notes
    with pytest.raises(InputError, match="b: unknown column 'L2'"):
        compare([of("a", 20), part], ["L2"])
    with pytest.raises(InputError, match="each once"):
        compare([of("a", 20), part], ["Linf", "Linf"])
    with pytest.raises(InputError, match="1 victim to compare"):
        compare([part])


def test_another_radius_is_noted() -> None:
    other = chain("Linf", first(25)).model_copy(update={"eps": "4/255"})
    found = compare([of("a", 20), of("b", 20, chains=[other])], ["Linf", "clean"])
    assert found.notes == ("Linf was not measured in the same way: a: Linf 8/255: apgd-ce | b: Linf 4/255: apgd-ce",)


def test_the_frame_and_the_json_hold_every_pair() -> None:
    found = compare([of("a", 20), of("b", 27), of("c", 30)])
    frame = found.to_frame()
    values = json.loads(found.to_json())
    assert len(frame) == len(values["pairs"]) == 15
    assert frame.to_dict("records") == values["pairs"]
    np.testing.assert_allclose(frame.difference, frame.first_rate - frame.second_rate, atol=1e-12)
    assert "McNemar" in values["test"]

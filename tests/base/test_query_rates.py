from __future__ import annotations

from transferbench.base.query_rates import QueryRate, success_rates


def test_rates_are_over_the_clean_correct_examples_and_end_with_the_budget() -> None:
    queries = [0, 1, 1, 10, 11, 50, 100, -1, -1, 0]
    assert success_rates(queries, 100) == [
        QueryRate(1, 2, 8), QueryRate(10, 3, 8), QueryRate(50, 5, 8), QueryRate(100, 6, 8)
    ]  # fmt: skip
    assert [rate.rate for rate in success_rates(queries, 10)] == [2 / 8, 3 / 8]
    assert success_rates(queries, 99)[-1].queries == 50
    assert success_rates([0, 0], 500)[-1].rate is None
    assert success_rates(queries, 40, at=(3, 40)) == [QueryRate(3, 2, 8), QueryRate(40, 4, 8)]

"""The ledger against its definition, for any order in which tries end."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from transferbench.engine.ledger import Ledger


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_attribution_and_decisive_passes_do_not_depend_on_the_schedule(data: st.DataObject) -> None:
    examples, ranks = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    passes = 40
    # The fate of every try: the pass at which it fools, or None.
    fate = [[data.draw(st.one_of(st.none(), st.integers(1, passes))) for _ in range(ranks)] for _ in range(examples)]
    patience, room = data.draw(st.sampled_from([0, 1, 5, 25])), data.draw(st.integers(1, 8))
    ledger = Ledger(examples, [True] * ranks, patience)
    flight: list[tuple[int, int]] = ledger.take(room)
    age = dict.fromkeys(flight, 0)
    for _ in range(10_000):
        assert ledger.settled <= examples
        if ledger.finished:
            break
        at = np.array(flight)
        left = set()
        for pair in flight:
            age[pair] += 1
            if fate[pair[0]][pair[1]] == age[pair]:
                ledger.hit(*pair)
                left.add(pair)
        for pair in flight:
            if pair not in left and age[pair] == passes:
                ledger.failed(*pair)
                left.add(pair)
        ledger.charge(at[:, 0], at[:, 1], np.array([age[pair] for pair in flight]))
        cancelled = ledger.cancelled(at[:, 0], at[:, 1])
        flight = [pair for pair, dead in zip(flight, cancelled, strict=True) if not dead and pair not in left]
        started = ledger.take(room - len(flight))
        started += ledger.take_early(room - len(flight) - len(started))
        assert not set(started) & set(flight)
        age |= dict.fromkeys(started, 0)
        flight += started
    assert ledger.finished
    decisive = np.zeros(ranks, dtype=np.int64)
    for example in range(examples):
        lowest = next((rank for rank in range(ranks) if fate[example][rank] is not None), ranks)
        assert ledger.decided[example] == lowest
        for rank in range(min(lowest + 1, ranks)):
            decisive[rank] += fate[example][rank] or passes
    spent = ledger.spent()
    assert spent.forwards.tolist() == decisive.tolist() == spent.backwards.tolist()
    assert spent.wasted.sum() == ledger.passes.sum() - decisive.sum()


def test_two_hits_of_one_example_in_one_iteration_settle_it_once() -> None:
    ledger = Ledger(2, [True, True], patience=0)
    assert ledger.take(2) == [(0, 0), (1, 0)]
    assert ledger.take_early(2) == [(0, 1), (1, 1)]
    assert ledger.hit(0, 0)
    assert not ledger.hit(0, 1), "its example has fallen to a lower rank"
    assert (ledger.settled, ledger.finished) == (1, False)
    assert ledger.hit(1, 1)
    assert ledger.hit(1, 0), "a lower rank takes the attribution over"
    assert ledger.finished
    assert ledger.decided.tolist() == [0, 0]


def test_early_tries_wait_for_patience() -> None:
    ledger = Ledger(2, [True, True])
    first = ledger.take(8)
    assert first == [(0, 0), (1, 0)]
    assert ledger.take_early(8) == []
    ledger.charge(np.array([0, 1]), np.array([0, 0]), np.array([25, 24]))
    assert ledger.take_early(8) == [(0, 1)]

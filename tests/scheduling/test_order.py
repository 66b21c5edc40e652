"""Which job begins next, and how much is left."""

from __future__ import annotations

import pytest
from support.place_jobs import PlaceJob

from transferbench.scheduling.order import Order


def test_what_the_longest_work_waits_for_begins_first() -> None:
    short, long = PlaceJob("short", "log", 1.0), PlaceJob("long", "log", 2.0)
    after = PlaceJob("after", "log", 5.0, needed=(short,))
    jobs = [long, short, after]
    for longest_first, expected in ((True, [1, 0]), (False, [0, 1])):
        order = Order(jobs, (), longest_first)
        for job in (long, short):
            order.add(job.name)
        assert [order.pop(), order.pop()] == expected
        assert not order


def test_what_was_done_before_is_not_taken_from_what_is_left() -> None:
    done, first, second = (PlaceJob(label, "log", seconds) for label, seconds in (("a", 3.0), ("b", 1.0), ("c", 2.0)))
    order = Order([done, first, second], {done.name}, longest_first=True)
    assert order.left == pytest.approx(300)
    order.close(done.name)
    assert order.left == pytest.approx(300)
    order.close(first.name)
    assert order.left == pytest.approx(200)

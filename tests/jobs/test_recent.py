"""The cache of networks: bounded by memory, and the last four stay whatever their size."""

from __future__ import annotations

import torch
from torch import nn

from transferbench.jobs.recent import FEWEST, RecentlyUsed, size_of


def test_small_networks_stay_and_large_ones_take_turns() -> None:
    small: RecentlyUsed[int, str] = RecentlyUsed(most_bytes=1000)
    for number in range(60):
        small.add(number, str(number), 10)
    assert len(small) == 60
    large: RecentlyUsed[int, str] = RecentlyUsed(most_bytes=1000)
    for number in range(60):
        large.add(number, str(number), 2000)
    assert [number for number in range(60) if number in large] == list(range(60 - FEWEST, 60))


def test_what_was_used_last_stays() -> None:
    cache: RecentlyUsed[str, int] = RecentlyUsed(most_bytes=FEWEST + 1)
    for name in "abcde":
        cache.add(name, ord(name), 1)
    assert cache["a"] == ord("a")
    cache.add("f", 0, 1)
    assert "a" in cache
    assert "b" not in cache


def test_a_value_that_is_added_again_is_counted_once() -> None:
    cache: RecentlyUsed[str, int] = RecentlyUsed(most_bytes=6)
    for name in ("a", "b", "c", "d", "e", "a", "a"):
        cache.add(name, 0, 1)
    assert len(cache) == 5


def test_the_size_is_that_of_parameters_and_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(torch.float32)
    assert size_of(model) == 4 * (3 * 2 + 2 + 2 + 2 + 2 + 2) + 8

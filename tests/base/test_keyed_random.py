from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from transferbench.base import keyed_random


def splitmix64(seed: int, count: int) -> list[int]:
    """The published algorithm in plain integers."""
    mask, out = (1 << 64) - 1, []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        out.append(z ^ (z >> 31))
    return out


@given(st.integers(-(2**63), 2**63 - 1))
def test_words_are_those_of_splitmix64(key: int) -> None:
    words = keyed_random.bits(torch.tensor([key]), 5)[0]
    assert [word % 2**64 for word in words.tolist()] == splitmix64(key % 2**64, 5)


def test_a_row_depends_on_its_own_key_alone() -> None:
    keys = keyed_random.row_keys(keyed_random.stream("a", 1), torch.arange(9))
    for draw in (keyed_random.uniform, keyed_random.normal, keyed_random.signs):
        together = draw(keys, (3, 5))
        for at in (0, 4, 8):
            assert torch.equal(draw(keys[at : at + 1], (3, 5))[0], together[at])
        assert torch.equal(draw(keys.flip(0), (3, 5)), together.flip(0))


def test_draws_have_their_distribution() -> None:
    keys = keyed_random.row_keys(keyed_random.stream("distribution"), torch.arange(8))
    uniform, normal, signs = (
        draw(keys, (50_000,)) for draw in (keyed_random.uniform, keyed_random.normal, keyed_random.signs)
    )
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1
    assert abs(float(uniform.mean()) - 0.5) < 0.005
    assert abs(float(normal.mean())) < 0.01
    assert abs(float(normal.std()) - 1) < 0.01
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.01
    assert float(torch.corrcoef(normal).fill_diagonal_(0).abs().max()) < 0.02


@given(st.integers(1, 200), st.integers(0, 5))
def test_a_permutation_is_one(n: int, seed: int) -> None:
    order = keyed_random.permutation(keyed_random.stream("order", seed), n)
    assert sorted(order.tolist()) == list(range(n))


def test_streams_differ_by_every_dimension() -> None:
    assert len({keyed_random.stream(*parts) for parts in [(1, 2), (2, 1), (12,), ("1", 2, ""), (1, 2, 3)]}) == 5

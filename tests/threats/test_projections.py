from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transferbench.attacks.apgd_base import replace_rows_
from transferbench.base import keyed_random
from transferbench.threats.projections import l1_correction


def naive_l1(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    """The projection of one row by 200 bisections of the multiplier in float64."""
    x, delta = x.double(), delta.double()
    room = torch.where(delta > 0, 1 - x, x)
    size = torch.minimum(delta.abs(), room)
    if float(size.sum()) <= eps:
        return delta.sign() * size
    low, high = 0.0, float(delta.abs().max())
    for _ in range(200):
        middle = (low + high) / 2
        left = torch.minimum((delta.abs() - middle).clamp(min=0), room)
        low, high = (middle, high) if float(left.sum()) > eps else (low, middle)
    return delta.sign() * torch.minimum((delta.abs() - high).clamp(min=0), room)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 5, 64, 300]), st.floats(0.01, 30), st.floats(0.01, 3))
def test_the_l1_projection_is_the_nearest_point(seed: int, d: int, eps: float, scale: float) -> None:
    keys = keyed_random.row_keys(keyed_random.stream("geometry", seed), torch.arange(3))
    x = keyed_random.uniform(keys, (d,))
    delta = scale * keyed_random.normal(keys + 1, (d,))
    moved = delta + l1_correction(x, delta, eps)
    for row in range(3):
        assert torch.allclose(moved[row].double(), naive_l1(x[row], delta[row], eps), atol=2e-5 * max(1.0, eps))


def test_the_l1_projection_agrees_with_the_reference() -> None:
    from pyautoattack.autopgd_base import L1_projection

    keys = keyed_random.row_keys(0, torch.arange(16))
    x, delta = keyed_random.uniform(keys, (3, 16, 16)), keyed_random.normal(keys + 7, (3, 16, 16))
    for eps in (1.0, 12.0, 255.0):
        ours, theirs = l1_correction(x, delta, eps), L1_projection(x, delta, eps)
        assert float((ours - theirs).abs().max()) < 5e-5


def test_rows_are_replaced_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    kept, new = (
        torch.randn(64, 3, 8, 8, generator=generator) * 10.0 ** torch.randint(-6, 7, (64, 3, 8, 8)) for _ in "ab"
    )
    for rows in (torch.rand(64, generator=generator) > 0.5, torch.zeros(64, dtype=torch.bool)):
        mask = rows[:, None, None, None]
        wanted, other = torch.where(mask, new, kept), torch.where(mask, kept, new)
        swapped, before = new.clone(), kept.clone()
        replace_rows_(rows, (kept, new), (swapped, before))
        assert torch.equal(kept, wanted)
        assert torch.equal(swapped, other)

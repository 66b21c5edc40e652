from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transferbench.base import keyed_random
from transferbench.base.specifications import NORMS, Norm
from transferbench.threats import geometry


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
    moved = delta + geometry.l1_correction(x, delta, eps)
    for row in range(3):
        assert torch.allclose(moved[row].double(), naive_l1(x[row], delta[row], eps), atol=2e-5 * max(1.0, eps))


def test_the_l1_projection_agrees_with_the_reference() -> None:
    from pyautoattack.autopgd_base import L1_projection

    keys = keyed_random.row_keys(0, torch.arange(16))
    x, delta = keyed_random.uniform(keys, (3, 16, 16)), keyed_random.normal(keys + 7, (3, 16, 16))
    for eps in (1.0, 12.0, 255.0):
        ours, theirs = geometry.l1_correction(x, delta, eps), L1_projection(x, delta, eps)
        assert float((ours - theirs).abs().max()) < 5e-5


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.03, 0.5, 5.0])
def test_projections_and_starts_stay_in_ball_and_box(norm: Norm, eps: float) -> None:
    keys = keyed_random.row_keys(1, torch.arange(32))
    x = keyed_random.uniform(keys, (3, 8, 8))
    far = x + 3 * keyed_random.normal(keys + 1, (3, 8, 8))
    limit = eps + geometry.tolerance(norm, 192)
    for point in (geometry.project(norm, x, far, eps), geometry.random_start(norm, x, eps, keys)):
        if norm == "L1":
            # x + delta + correction can leave the box by a rounding; attacks clamp their start.
            point = point.clamp(0, 1)
        assert float(point.min()) >= 0
        assert float(point.max()) <= 1
        assert float(geometry.distance(norm, x, point).max()) <= limit


@pytest.mark.parametrize("norm", NORMS)
def test_a_point_inside_is_left_where_it_is(norm: Norm) -> None:
    keys = keyed_random.row_keys(2, torch.arange(8))
    x = 0.25 + 0.5 * keyed_random.uniform(keys, (10,))
    near = x + 0.001 * keyed_random.normal(keys + 1, (10,))
    assert torch.allclose(geometry.project(norm, x, near, 0.5), near, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_rows_do_not_depend_on_their_batch(norm: Norm) -> None:
    keys = keyed_random.row_keys(3, torch.arange(12))
    x = keyed_random.uniform(keys, (3, 8, 8))
    far = x + keyed_random.normal(keys + 1, (3, 8, 8))
    together = geometry.project(norm, x, far, 1.5)
    for start, stop in ((0, 5), (5, 12)):
        assert torch.equal(geometry.project(norm, x[start:stop], far[start:stop], 1.5), together[start:stop])


def test_distances_are_exact_in_float64() -> None:
    x = torch.zeros(1, 3)
    z = torch.tensor([[0.5, -0.25, 0.0]])
    assert geometry.distance("Linf", x, z).item() == 0.5
    assert geometry.distance("L1", x, z).item() == 0.75
    assert geometry.distance("L2", x, z).item() == pytest.approx(0.3125**0.5, abs=1e-16)


def test_rows_are_replaced_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    kept, new = (
        torch.randn(64, 3, 8, 8, generator=generator) * 10.0 ** torch.randint(-6, 7, (64, 3, 8, 8)) for _ in "ab"
    )
    for rows in (torch.rand(64, generator=generator) > 0.5, torch.zeros(64, dtype=torch.bool)):
        mask = rows[:, None, None, None]
        wanted, other = torch.where(mask, new, kept), torch.where(mask, kept, new)
        swapped, before = new.clone(), kept.clone()
        geometry.replace_rows_(rows, (kept, new), (swapped, before))
        assert torch.equal(kept, wanted)
        assert torch.equal(swapped, other)

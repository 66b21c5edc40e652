"""Controls are as large as the attack and know nothing of it."""

from __future__ import annotations

import pytest
import torch

from transferbench import data
from transferbench.base.specifications import ThreatModel
from transferbench.engine import controls

LINF = ThreatModel.parse("Linf", "0.1")


@pytest.fixture
def points() -> torch.Tensor:
    """Points in the middle of the box, where nothing is clipped: [2, 12, 1, 8, 8]."""
    shard = data.load("letters", "test").first(12)
    noise = torch.rand(2, 12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return (shard.images + 0.2 * (noise - 0.5)).clamp(0, 1)


def test_shuffled_points_have_the_same_entries_at_other_places() -> None:
    moved = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(1)) - 0.5
    changed = controls.shuffled(moved, torch.arange(5))
    for row in range(5):
        for channel in range(3):
            assert torch.equal(
                changed[row, channel].abs().flatten().sort().values, moved[row, channel].abs().flatten().sort().values
            )
    assert torch.allclose(changed.flatten(1).norm(dim=1), moved.flatten(1).norm(dim=1))
    assert float((changed == moved).float().mean()) < 0.1
    assert not torch.equal(changed[0].abs() > 0.2, changed[1].abs() > 0.2)
    assert torch.equal(controls.shuffled(moved[2:3], torch.arange(2, 3)), changed[2:3]), "by the row's key alone"


def test_control_points_stay_in_ball_and_box(points: torch.Tensor) -> None:
    shard = data.load("letters", "test").first(12)
    for change in controls.OF_POINTS:
        changed = controls.changed_points(change, shard, points, LINF, 0)
        assert changed.shape == points.shape
        assert float((changed - shard.images).abs().max()) <= 0.1 + 1e-6
        assert float(changed.min()) >= 0
        assert float(changed.max()) <= 1
        assert not torch.equal(changed[0], changed[1]), "every try has its own"


def test_another_images_perturbation_is_the_one_before(points: torch.Tensor) -> None:
    shard = data.load("letters", "test").first(12)
    middle = 0.5 * torch.ones_like(shard.images)
    moved = points[0] - shard.images
    centred = type(shard)(**{**shard.__dict__, "images": middle})
    changed = controls.changed_points("other-image", centred, (middle + moved)[None], LINF, 0)[0]
    for row in range(12):
        assert torch.allclose(changed[row] - 0.5, moved[row - 1], atol=1e-6)


def test_another_phase_keeps_the_spectrum() -> None:
    delta = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) - 0.5
    changed = controls.other_phases(delta, torch.tensor([1, 2]))
    assert torch.allclose(torch.fft.fft2(changed).abs(), torch.fft.fft2(delta).abs(), atol=1e-3)
    assert torch.allclose(changed.flatten(1).norm(dim=1), delta.flatten(1).norm(dim=1), rtol=1e-4)
    assert float(torch.cosine_similarity(changed.flatten(1), delta.flatten(1)).abs().max()) < 0.3
    eps = ThreatModel.parse("Linf", "0.05")
    scaled = controls.changed_deltas("spectrum", delta * 0.1, eps, 0)
    assert float(scaled.abs().max()) <= 0.05 + 1e-7
    ratio = torch.fft.fft2(scaled).abs() / torch.fft.fft2(delta * 0.1).abs().clamp(min=1e-6)
    assert float(ratio[0].std() / ratio[0].mean()) < 0.01, "scaled as a whole, not clipped"

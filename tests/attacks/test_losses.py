from __future__ import annotations

import pytest
import torch

from transferbench.attacks import losses


def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(40, 6), torch.randint(6, (40,))


def test_dlr_by_hand() -> None:
    logits, y = logits_and_labels()
    for row, label, got in zip(logits.tolist(), y.tolist(), losses.dlr(logits, y).tolist(), strict=True):
        top = sorted(row, reverse=True)
        others = max(z for place, z in enumerate(row) if place != label)
        assert got == pytest.approx(-(row[label] - others) / (top[0] - top[2] + 1e-12), rel=1e-4)


def test_targeted_dlr_by_hand() -> None:
    logits, y = logits_and_labels()
    target = (y + 1) % 6
    for row, label, aim, got in zip(
        logits.tolist(), y.tolist(), target.tolist(), losses.targeted_dlr(logits, y, target).tolist(), strict=True
    ):
        top = sorted(row, reverse=True)
        assert got == pytest.approx(-(row[label] - row[aim]) / (top[0] - (top[2] + top[3]) / 2 + 1e-12), rel=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_below_four_classes_the_margin_takes_its_place(classes: int) -> None:
    logits = torch.randn(5, classes)
    y, target = torch.zeros(5, dtype=torch.int64), torch.ones(5, dtype=torch.int64)
    assert torch.equal(losses.targeted_dlr(logits, y, target), logits[:, 1] - logits[:, 0])


def test_cw_margin_by_hand() -> None:
    logits, y = logits_and_labels()
    for kappa in (0.0, 50.0):
        for row, label, got in zip(
            logits.tolist(), y.tolist(), losses.cw_margin(logits, y, kappa).tolist(), strict=True
        ):
            others = max(z for place, z in enumerate(row) if place != label)
            assert got == pytest.approx(-max(row[label] - others + kappa, 0), rel=1e-4, abs=1e-5)

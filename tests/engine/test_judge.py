from __future__ import annotations

import pytest
import torch
from support.nets import Linear, Small
from torch import Tensor, nn

from transferbench.base.errors import FaultError
from transferbench.base.specifications import ThreatModel
from transferbench.engine.judge import Judge, check_admissible

LINF = ThreatModel.parse("Linf", "0.1")


@pytest.mark.parametrize("move", [0.11, -0.11, float("nan"), float("inf")])
def test_a_point_outside_its_ball_is_a_fault_not_a_miss(move: float) -> None:
    x = torch.full((3, 1, 4, 4), 0.5)
    bad = x.clone()
    bad[1, 0, 2, 2] += move
    with pytest.raises(FaultError, match="example id 8"):
        check_admissible(LINF, x, bad, torch.tensor([7, 8, 9]))


@pytest.mark.parametrize("value", [1.05, -0.05])
def test_a_point_outside_the_box_is_a_fault(value: float) -> None:
    x = torch.full((1, 4), round(value))
    bad = x.clone().float()
    bad[0, 0] = value
    with pytest.raises(FaultError, match=r"outside \[0,1\]"):
        check_admissible(LINF, x.float(), bad, torch.tensor([0]))


def test_rounding_is_no_fault() -> None:
    x = torch.full((1, 4), 0.3)
    check_admissible(LINF, x, x + 0.1, torch.tensor([0]))


def test_not_finite_logits_are_never_robust() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3), float("nan"))

    with pytest.raises(FaultError, match=r"example ids \[40, 41\]"):
        Judge(Broken()).logits(torch.zeros(2, 4), torch.tensor([40, 41]))


def test_a_hit_by_a_hair_is_a_tie() -> None:
    model = Linear(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-9.0, -9.0]]), torch.zeros(3))
    x = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    near = torch.tensor([[0.5, 0.5001], [0.5, 0.58]])
    judged = Judge(model)(LINF, x, near, torch.tensor([0, 0]), torch.arange(2))
    assert judged.fooled.tolist() == [True, True]
    assert judged.tie.tolist() == [True, False]


def test_predictions_do_not_depend_on_the_batch(small: Small) -> None:
    """Batches below 16 rows would take another convolution: the judge pads them."""
    whole = Judge(small.model).logits(small.x)
    for size in (1, 3, 7, 15):
        assert torch.equal(Judge(small.model).logits(small.x[:size]), whole[:size])
    assert torch.equal(Judge(small.model, batch_size=20).logits(small.x), whole)

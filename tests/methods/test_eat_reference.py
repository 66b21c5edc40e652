"""A training step of E-AT on robust-finetuning's own network and attack: what its code computes, as a few numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.formula_weights import numbers, picture

from transferbench import methods
from transferbench.methods import Batch, Network
from transferbench.models import networks

# robust-finetuning's fast_models.PreActResNet18 (softplus1) and apgd_train with 5 steps, on the same weights, images
# and labels: the L1 length of each image's change, the loss in train mode at the points, and three weights of the last
# layer after a step of SGD (lr .05, momentum .9, weight decay 5e-4).
THEIRS = {
    "Linf": ("8/255", (88.81770, 88.37226, 88.50902, 88.54008), 2.971558, (-0.01545972, 0.06171694, -0.00102131)),
    "L2": ("0.5", (13.05221, 14.45016, 13.59920, 13.67802), 2.968359, (-0.01545343, 0.06174919, -0.00100853)),
    "L1": ("12", (12.0, 12.0, 12.0, 12.0), 3.263252, (-0.01549136, 0.06171401, -0.00104895)),
}


@pytest.mark.parametrize("norm", THEIRS)
def test_a_step_is_robust_finetunings(norm: str) -> None:
    eps, changes, loss, weights = THEIRS[norm]
    built = networks.build("preact-resnet18", 10)
    built.model.load_state_dict(numbers(built.model.state_dict()))
    x = torch.cat([picture(32, shift) for shift in (0.0, 1.0, 2.0, 3.0)])
    y = torch.tensor([3, 1, 4, 1])
    method = methods.build("apgd-at", {"l_norms": norm, "l_eps": eps, "at_iter": 5})
    student = Network(built.model.train(), built.layers)
    points = method.worst(student, Batch(x, y, torch.arange(4), 0), norm)
    assert (points - x).abs().sum((1, 2, 3)).tolist() == pytest.approx(changes, rel=2e-3)
    optimiser = torch.optim.SGD(student.model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    found = F.cross_entropy(student.model(points), y)
    assert found.item() == pytest.approx(loss, rel=1e-3)
    found.backward()
    optimiser.step()
    last = student.model.get_parameter("linear.weight").detach().flatten()[:3]
    assert last.tolist() == pytest.approx(weights, rel=1e-2)

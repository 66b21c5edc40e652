"""The activation of a network, by its batch norms' running means."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from transferbench.models import batch_norm_means, networks, victims
from transferbench.models.networks.preact_resnet18 import three_piece_relu, three_piece_smooth

CANDIDATES = {
    "relu": F.relu,
    "softplus1": F.softplus,
    "silu": F.silu,
    **{f"3prelu{d}": partial(three_piece_relu, d=d) for d in (0.5, 1, 2)},
    **{f"3psmooth{d}": partial(three_piece_smooth, d=d) for d in (0.5, 1, 2)},
}


def blocks_of(model: nn.Module) -> list[batch_norm_means.Block]:
    return [(module.bn1, module.conv2, module.bn2) for module in model.modules() if hasattr(module, "conv2")]  # type: ignore[misc]


def test_a_network_trained_with_relu_is_recognised() -> None:
    """The reference package's ResNet-18: real weights of a real training."""
    blocks = blocks_of(victims.load("AA_ResNet18").model)
    assert len(blocks) == 8
    for own in CANDIDATES:
        assert batch_norm_means.activations_of(blocks, CANDIDATES, own) == ["relu"]


def test_a_network_that_was_not_trained_says_nothing() -> None:
    for seen in (0, 5):
        model = networks.build("aa-resnet18", 10).model.train()
        for _ in range(seen):
            model(torch.rand(4, 3, 32, 32))
        for own in CANDIDATES:
            assert batch_norm_means.activations_of(blocks_of(model), CANDIDATES, own) == [own]

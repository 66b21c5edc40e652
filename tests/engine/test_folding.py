"""Folding: torch's own rewriting gives the same bits where it can trace, and timm's networks are folded as well."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from support.photographs import crops
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from transferbench.engine.folding import folded
from transferbench.engine.gradients import outputs
from transferbench.engine.search_model import copy_of
from transferbench.models.loaders import robustbench_package
from transferbench.models.victims import load


def wide_resnet() -> nn.Module:
    """Pre-activation blocks, as most models of RobustBench have them."""
    robustbench_package.model_dicts()
    from robustbench.model_zoo.architectures.wide_resnet import WideResNet

    return WideResNet(16, 10, 2)  # type: ignore[no-any-return]


def of_timm(name: str) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=10)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "WRN-16-2": wide_resnet,
    "ResNet-18": lambda: load("AA_ResNet18").model,
    "small-resnet-32": lambda: load("animals-natural").model,
    "torchvision MobileNetV2": lambda: torchvision.models.mobilenet_v2(num_classes=10),
}
OF_TIMM = ["tf_efficientnet_lite0", "mobilenetv2_050", "efficientnet_b0", "mobilenetv3_small_050", "regnety_002"]


def with_statistics(build: Callable[[], nn.Module]) -> nn.Module:
    """The network in eval mode with batch norms that shift and scale, as trained ones do."""
    torch.manual_seed(0)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def batch_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_bits_of_torchs_own_rewriting(name: str) -> None:
    model, x = with_statistics(NETWORKS[name]), crops()[:8]
    expected = outputs(fuse(model), x)
    for ours, theirs in zip(outputs(folded(model), x), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("build", [*NETWORKS.values(), *map(of_timm, OF_TIMM)], ids=[*NETWORKS, *OF_TIMM])
def test_networks_are_folded(build: Callable[[], nn.Module]) -> None:
    """Some of their many kinks flip where a folded batch norm rounds otherwise: no reason to give the copy up."""
    model, x = with_statistics(build), crops()[:16]
    search = copy_of(model, x)
    assert (search.copied, search.folded) == (True, True)
    (logits, slope), (ours, mine) = outputs(model, x), outputs(search.network, x)
    assert float((logits - ours).abs().max()) < 1e-4 * float(logits.max() - logits.min())
    assert float((slope - mine).norm() / slope.norm()) < 1e-2


@pytest.mark.parametrize("name", OF_TIMM)
def test_no_batch_norm_of_timm_is_left(name: str) -> None:
    model = with_statistics(of_timm(name))
    assert batch_norms(model) > 10
    assert not [node for node in folded(model).graph.nodes if "BatchNorm" in type(_module(model, node)).__name__]


def _module(model: nn.Module, node: torch.fx.Node) -> nn.Module | None:
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None


class Wired(nn.Module):
    """A convolution and a batch norm to be wired in any way."""

    def __init__(self, wiring: Callable[[Wired, Tensor], Tensor], standardised: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = (_Standardised if standardised else nn.Conv2d)(3, 3, 3, padding=1)
        self.norm, self.head, self.wiring = nn.BatchNorm2d(3), nn.Linear(3, 5), wiring

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.wiring(self, x).mean((2, 3)))


class _Standardised(nn.Conv2d):
    """A convolution that standardises its weights, as timm's StdConv2d."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.layer_norm(self.weight, self.weight.shape[1:])
        return F.conv2d(x, weight, self.bias, padding=self.padding)


WIRINGS: dict[str, Callable[[Wired, Tensor], Tensor]] = {
    "the convolution is read again": lambda n, x: n.norm(h := n.conv(x)) + h,
    "the convolution is called twice": lambda n, x: n.norm(n.conv(n.conv(x))),
    "the batch norm is called twice": lambda n, x: n.norm(n.norm(n.conv(x))),
    "the batch norm reads the image": lambda n, x: n.conv(n.norm(x)),
}


@pytest.mark.parametrize("name", WIRINGS)
def test_what_cannot_be_folded_stays(name: str) -> None:
    model, x = with_statistics(lambda: Wired(WIRINGS[name])), crops()[:8]
    expected = outputs(model, x)
    for ours, theirs in zip(outputs(folded(model), x), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_layer_that_changes_its_weights_is_noticed() -> None:
    model, x = with_statistics(lambda: Wired(lambda n, x: n.norm(n.conv(x)), standardised=True)), crops()[:8]
    search = copy_of(model, x)
    assert (search.copied, search.folded) == (True, False)
    assert torch.allclose(outputs(model, x)[0], outputs(search.network, x)[0], atol=1e-5)

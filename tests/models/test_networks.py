"""Architectures: what every one of them promises, and the papers' particular ones recomputed naively."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.formula_weights import numbers, picture
from torch import nn

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.models import networks
from transferbench.models.features import find_layers, record_features, submodule
from transferbench.models.networks import madry_wrn, preact_resnet18
from transferbench.models.networks.normalised import Normalised

FAMILIES = (
    "torchvision", "timm", "transformers", "robustbench", "resized", "normalised", "mlp-head", "batch-statistics",
    "adapter",
)  # fmt: skip
IDS = [
    *(id for id in registry.entries("networks") if id not in FAMILIES),
    "batch-statistics:small-resnet",
    "resized:64-32:preact-resnet18",
    "preact-resnet18:3psmooth0.5",
    "resized:8-16:small-resnet",
    "mlp-head:24:small-resnet",
    "adapter:4:small-resnet",
    "adapter:8:timm:vit_tiny_patch16_224@32/8",
    "adapter:8:timm:convnext_atto@32",
    "mlp-head:24,12+bn+dropout0.5:resized:8-16:small-resnet",
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:mobilenet_v2",
    "normalised:0.5/0.5:timm:test_vit@32",
    "normalised:0.1307/0.3081:small-resnet",
    "timm:vit_tiny_patch16_224@32/8",
    "timm:swin_s3_tiny_224@56",
    "timm:convnext_atto@32",
    "timm:resnet18@32",
    "robustbench:cifar10/Linf/Sehwag2021Proxy_R18",
    "robustbench:imagenet/Linf/Salman2020Do_R18",
]


@pytest.mark.parametrize("id", IDS)
def test_every_network_keeps_its_promises(id: str) -> None:
    before = torch.get_rng_state()
    built = networks.build(id, 7)
    assert torch.equal(torch.get_rng_state(), before), "the random state is as before"
    model = built.model.eval()
    x = torch.rand(2, *built.input_shape)
    with torch.no_grad(), record_features(model, built.layers, built.layers.stages) as features:
        logits = model(x)
    assert logits.shape == (2, 7)
    assert len(built.layers.stages) >= 3
    assert list(features.stages) == list(built.layers.stages), "stages run in the order given"
    head = submodule(model, built.layers.head)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        assert torch.equal(head(features.penultimate[built.layers.head]), logits), "the head gives the logits"


def test_the_sizes_are_the_papers() -> None:
    def millions(id: str) -> float:
        return sum(parameter.numel() for parameter in networks.build(id, 10).model.parameters()) / 1e6

    assert millions("preact-resnet18") == pytest.approx(11.17, abs=0.01)
    wide = networks.build("madry-wrn-32-10", 10).model
    # 31 convolutions of 3x3 and a linear layer; no 1x1 shortcut has weights.
    kernels = [module.kernel_size for module in wide.modules() if isinstance(module, nn.Conv2d)]
    assert kernels == [(3, 3)] * 31
    widths = [(3, 16)] + [(i, o) for first, o in ((16, 160), (160, 320), (320, 640)) for i in (first, *[o] * 9)]
    convolutions = sum(9 * i * o for i, o in widths)
    norms = 2 * (sum(i for i, _ in widths[1:]) + 640)
    assert sum(parameter.numel() for parameter in wide.parameters()) == convolutions + norms + 640 * 10 + 10


def test_madry_inputs_are_tensorflows() -> None:
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x[2] = 0.5
    pixels = 255 * x.double().numpy()
    for image, got in zip(pixels[:2], madry_wrn.standardise(x)[:2], strict=True):
        wanted = (image - image.mean()) / max(image.std(), 1 / np.sqrt(image.size))
        assert np.allclose(got.numpy(), wanted, atol=1e-5)
    assert madry_wrn.standardise(x)[2].abs().max() < 1e-3, "a constant image stays finite"
    unit = madry_wrn.unit_norm(x)[:2]
    assert torch.allclose(unit.flatten(1).norm(dim=1), torch.ones(2), atol=1e-5)
    assert unit.flatten(1).mean(1).abs().max() < 1e-6
    slope = torch.autograd.functional.jacobian(lambda z: madry_wrn.standardise(z).sum((1, 2, 3)), x[2:, :, :2, :2])
    assert bool(torch.isfinite(slope).all())


@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_tensorflows(stride: int) -> None:
    x, kernel = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 3, 3)
    got = F.conv2d(madry_wrn.pad_same(x, stride), kernel, stride=stride)[0, 0]
    # TensorFlow: ceil(n / stride) outputs, the total padding split with the odd pixel behind.
    size = 8 // stride
    total = max((size - 1) * stride + 3 - 8, 0)
    padded = np.zeros((8 + total, 8 + total), dtype=np.float32)
    padded[total // 2 : total // 2 + 8, total // 2 : total // 2 + 8] = x[0, 0].numpy()
    for i in range(size):
        for j in range(size):
            patch = padded[i * stride : i * stride + 3, j * stride : j * stride + 3]
            assert got[i, j].item() == pytest.approx((patch * kernel[0, 0].numpy()).sum(), abs=1e-5)


def test_a_madry_unit_by_hand() -> None:
    torch.manual_seed(0)
    unit = madry_wrn.Unit(16, 32, 2, active_first=False).eval()
    x = torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        aside = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 8, 8))
        inner = F.conv2d(F.pad(F.leaky_relu(unit.bn1(x), 0.1), (0, 1, 0, 1)), unit.conv1.weight, stride=2)
        inner = F.conv2d(F.leaky_relu(unit.bn2(inner), 0.1), unit.conv2.weight, padding=1)
        assert torch.allclose(unit(x), inner + aside, atol=1e-6)


def test_preact_names_are_those_of_its_checkpoints() -> None:
    names = set(networks.build("preact-resnet18", 10).model.state_dict())
    assert {
        "conv1.weight",
        "layer2.0.shortcut.0.weight",
        "layer4.1.bn2.running_var",
        "bn.weight",
        "linear.bias",
    } <= names
    assert "layer1.0.shortcut.0.weight" not in names
    block = networks.build("preact-resnet18", 10).model.get_submodule("layer2.0").eval()
    x = torch.randn(1, 64, 4, 4)
    with torch.no_grad():
        active = F.softplus(block.bn1(x))
        inner = block.conv2(F.softplus(block.bn2(block.conv1(active))))
        assert torch.allclose(block(x), inner + block.shortcut(active), atol=1e-6)


# Logits of robust-finetuning's PreActResNet18(4, activation=...) in eval mode with the weights of
# support/formula_weights.py for its picture(32).
ACTIVATIONS = {
    "relu": [16.82977, -22.49887, 27.66674, -32.24273],
    "softplus1": [6.00807, -7.80929, 9.57783, -11.33147],
    "softplus5": [14.61156, -19.48835, 23.95994, -27.95788],
    "3prelu1": [5.59644, -7.24964, 8.88801, -10.53349],
    "3prelu0.25": [15.18609, -20.26973, 24.92323, -29.07237],
    "3psmooth1": [11.70603, -15.54115, 19.09698, -22.33427],
    "3psmooth.5": [14.95717, -19.95872, 24.54005, -28.62925],
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_preact_activations_are_those_of_its_code(name: str) -> None:
    model = networks.build(f"preact-resnet18:{name}", 4).model.eval()
    model.load_state_dict(numbers(model.state_dict()))
    with torch.no_grad():
        assert model(picture(32))[0].tolist() == pytest.approx(ACTIVATIONS[name], abs=1e-3)


def test_three_pieces_by_hand() -> None:
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], requires_grad=True)
    for function, expected, slopes in (
        (preact_resnet18.three_piece_relu, [0.0, 0.25, 0.75, 1.25, 2.0], [0.0, 0.5, 0.5, 0.5, 1.0]),
        (preact_resnet18.three_piece_smooth, [0.0, 0.25 / 6, 2.25 / 6, 6.25 / 6, 2.0], [0, 1 / 6, 0.5, 5 / 6, 1]),
    ):
        found = function(x, 1.5)
        assert found.tolist() == pytest.approx(expected)
        (slope,) = torch.autograd.grad(found.sum(), x)
        assert slope.tolist() == pytest.approx(slopes)


def test_normalisation_is_imagenets() -> None:
    model, x = Normalised(nn.Flatten()), torch.rand(1, 3, 2, 2)
    wanted = (x[0, :, 0, 0].numpy() - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert np.allclose(model(x).view(3, 2, 2)[:, 0, 0].numpy(), wanted, atol=1e-6)
    assert model.state_dict() == {}, "two constants, no weights"


def test_a_network_without_one_head_says_so() -> None:
    flat = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert find_layers(flat).head == ""
    behind = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4))
    assert find_layers(behind).head == "", "what follows the last Linear would be taken for nothing"
    with pytest.raises(InputError, match="no penultimate feature"), record_features(flat, find_layers(flat)):
        pass
    with pytest.raises(InputError, match="no single linear head"):
        networks.build("robustbench:cifar10/corruptions/Diffenderfer2021Winning_LRR_CARD_Deck", 7)


@pytest.mark.parametrize(
    ("id", "complaint"),
    [
        ("torchvision:resnet19", "did you mean 'resnet1"),
        ("robustbench:cifar10/Linf/Nobody", "unknown"),
        ("vgg", "unknown"),
    ],
)
def test_unknown_networks_are_named(id: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        networks.build(id, 10)


@pytest.mark.parametrize("id", ["mlp-head:small-resnet", "mlp-head:0:small-resnet", "mlp-head:8+bm:small-resnet"])
def test_a_head_that_is_misspelt_says_how_it_is_written(id: str) -> None:
    with pytest.raises(InputError, match=r"write it as mlp-head:512:<network>"):
        networks.build(id, 10)

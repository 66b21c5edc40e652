"""Networks that are evaluated on the statistics of each batch, as IGAM's code evaluates its students."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import transferbench
from transferbench import data
from transferbench.base.errors import InputError
from transferbench.methods import batch_norms
from transferbench.models import networks, victims
from transferbench.models.loaders import embedded as embedded_loader

LETTERS = Path(embedded_loader.__file__).parents[1] / "embedded" / "letters-madry" / "model.safetensors"


@pytest.mark.parametrize("id", ["small-resnet", "mlp-head:8+bn:small-resnet", "preact-resnet18:relu"])
def test_in_eval_mode_it_answers_as_the_inner_network_in_train_mode(id: str) -> None:
    inner, own = networks.build(id, 5), networks.build(f"batch-statistics:{id}", 5)
    own.model.load_state_dict(inner.model.state_dict())
    assert list(own.model.state_dict()) == list(inner.model.state_dict()), "one file can be loaded either way"
    assert own[1:] == inner[1:]
    x = torch.rand(6, *inner.input_shape)
    expected = inner.model.train()(x)
    before = {name: tensor.clone() for name, tensor in own.model.state_dict().items()}
    with torch.no_grad():
        assert torch.allclose(own.model.eval()(x), expected, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.model.state_dict().items()), "nothing changes"
    own.model.train()(x)
    state = own.model.state_dict()
    for name, tensor in inner.model.state_dict().items():
        assert torch.allclose(tensor, state[name], atol=1e-6), "in train mode nothing is different"


def test_a_batch_norm_by_hand() -> None:
    model = networks.build("batch-statistics:small-resnet", 3).model.eval()
    norm = next(module for module in batch_norms(model).values() if isinstance(module, nn.BatchNorm2d))
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    x = torch.randn(4, norm.num_features, 3, 3).double()
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    expected = (x - mean) / (variance + norm.eps).sqrt()
    expected = expected * norm.weight.data.view(1, -1, 1, 1) + norm.bias.data.view(1, -1, 1, 1)
    assert torch.allclose(norm(x.float()).double(), expected, atol=1e-4)


def test_its_results_are_flagged_and_belong_to_a_batch_size() -> None:
    letters = data.load("letters", "test").first(64)
    victim = victims.load(f"file:batch-statistics:small-resnet={LETTERS}")
    assert victim.card.network == "batch-statistics:small-resnet", "on the card, and so in the record"
    report = transferbench.evaluate(
        victim, letters.pixels, letters.labels, {"Linf": "0.1"}, attacks=("pgd",), n_iter=2, batch_size=32
    )
    assert "mixes-rows" in report.flags
    assert report.batch == 32
    plain = victims.load(f"file:small-resnet={LETTERS}")
    report = transferbench.evaluate(
        plain, letters.pixels, letters.labels, {"Linf": "0.1"}, attacks=("pgd",), n_iter=2, batch_size=32
    )
    assert "mixes-rows" not in report.flags


@pytest.mark.parametrize(
    ("id", "complaint"),
    [
        ("batch-statistics:torchvision:vgg11", "it has no batch norm"),
        ("batch-statistics:nothing", "unknown"),
        ("batch-statistics:batch-statistics:small-resnet", "BatchNorm2dOfBatch, which has no form"),
    ],
)
def test_other_networks_are_named(id: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        networks.build(id, 3)

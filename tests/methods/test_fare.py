"""FARE: the steps that the loop makes in both phases, against the formulas with an attack written out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.nets import Small
from support.trainings import LAYERS, settings
from torch import Tensor, nn

from transferbench import data, methods
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.methods import Batch, Network
from transferbench.training import loop
from transferbench.training.batches import Loader

STEP = {"steps": 2, "probe_steps": 1, "lr": 0.05, "probe_lr": 0.05, "schedule": "constant", "weight_decay": 0.0,
        "probe_decay": 0.0, "momentum": 0.0, "optimiser": "sgd", "warm_up": 0.0, "decay": "all"}  # fmt: skip


@pytest.fixture
def source(small: Small) -> Network:
    return Network(small.model, LAYERS)


def features(model: nn.Module, x: Tensor) -> Tensor:
    """The head's input, by a head that hands it on."""
    bare = copy.copy(model)
    bare._modules = {**model._modules, "head": nn.Identity()}
    z: Tensor = bare(x)
    return z.flatten(1)


def displaced(model: nn.Module, batch: Batch, target: Tensor, eps: float = 0.1, k: int = 2) -> Tensor:
    """PGD on the squared distance of the features: a uniform start; a step is a quarter of eps along the sign of the
    gradient, where that is 0 along the step before."""
    uniform = keyed_random.uniform(batch.noise, tuple(batch.x.shape[1:]))
    low, high = (batch.x - eps).clamp(min=0), (batch.x + eps).clamp(max=1)
    x = (batch.x + eps * (2 * uniform - 1)).clamp(low, high)
    velocity = torch.zeros_like(x)
    for _ in range(k):
        x.requires_grad_(True)
        (gradient,) = torch.autograd.grad((features(model, x) - target).square().sum(), x)
        velocity = torch.where(gradient == 0, velocity, gradient.sign())
        x = (x.detach() + eps / 4 * velocity).clamp(low, high)
    return x


def parts(source: Network, given: dict[str, Any]) -> tuple[Network, nn.Module, list[Batch]]:
    """The network after the loop's two steps, a plain one as it began, and the batches of the steps."""
    splits = data.load("digits", "train"), data.load("digits", "val")
    method = methods.build("fare", {**settings("fare"), **STEP, **given})
    with torch.random.fork_rng():
        torch.manual_seed(keyed_random.stream("init", method.params.seed))
        plain = copy.deepcopy(methods.build("finetune", {}).student(source, lambda: source, 10).model).eval()
    batches = Loader(splits[0], method.params).from_step(0)
    first = [next(batches), next(batches)]
    return loop.fit(method, source, lambda: source, *splits).network, plain, first


@pytest.mark.parametrize("probe", ["clean", "adversarial"])
def test_both_steps_by_hand(probe: str, source: Network) -> None:
    trained, model, (first, second) = parts(source, {"probe": probe})
    with torch.no_grad():
        target = features(source.model, first.x)
    x = displaced(model, first, target)
    body = {name: value for name, value in model.named_parameters() if not name.startswith("head.")}
    loss = (features(model, x) - target).square().sum(1).mean()
    for value, gradient in zip(body.values(), torch.autograd.grad(loss, list(body.values())), strict=True):
        value.data -= 0.05 * gradient
    x = second.x
    if probe == "adversarial":
        uniform = keyed_random.uniform(second.noise, tuple(x.shape[1:]))
        low, high = (x - 0.1).clamp(min=0), (x + 0.1).clamp(max=1)
        x = (x + 0.1 * (2 * uniform - 1)).clamp(low, high)
        for _ in range(2):
            x.requires_grad_(True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), second.y, reduction="sum"), x)
            x = (x.detach() + 0.025 * gradient.sign()).clamp(low, high)
    head = dict(model.get_submodule("head").named_parameters())
    loss = F.cross_entropy(model(x), second.y)
    for value, gradient in zip(head.values(), torch.autograd.grad(loss, list(head.values())), strict=True):
        value.data -= 0.05 * gradient
    expected = model.state_dict()
    for name, value in trained.model.state_dict().items():
        assert torch.allclose(value, expected[name], atol=2e-6), name


def test_labels_enter_the_head_alone(source: Network) -> None:
    """With other labels the features' phase does the same: no term of it is a cross-entropy."""
    method = methods.build("fare", {**settings("fare"), **STEP})
    with torch.random.fork_rng():
        student = method.student(source, lambda: source, 10)
    student.model.eval()
    batch = next(Loader(data.load("digits", "train"), method.params).from_step(0))
    losses = [method.loss(student, source, batch._replace(y=y)) for y in (batch.y, 9 - batch.y)]
    assert [list(one) for one in losses] == [["features"], ["features"]]
    assert losses[0]["features"].item() == losses[1]["features"].item() > 0


@pytest.mark.parametrize(
    ("given", "complaint"),
    [({"tune": "lora"}, "fare: tune=lora"), ({"probe_steps": 30_000}, "part of all 30000"), ({"eps": "x"}, "x")],
)
def test_what_cannot_be_trained_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        methods.build("fare", given)

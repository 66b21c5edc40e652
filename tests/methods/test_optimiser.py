"""AdamW, warm-up, clipping, the moving average and the head's decay against their formulas, and their exact resume."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.nets import Small
from support.trainings import LAYERS, SHORT, StoppedError, StopsAfter, same, state_of

from transferbench import data, methods
from transferbench.base import schedules
from transferbench.base.errors import InputError
from transferbench.methods import Network, stated
from transferbench.training import loop
from transferbench.training.batches import Loader

PLAIN = {**SHORT, "augment": "none", "schedule": "constant", "lr": 0.01, "head_lr": 3, "freeze_bn": "stats"}


@pytest.fixture
def source(small: Small) -> Network:
    return Network(small.model, LAYERS)


def trained(source: Network, options: loop.FitOptions = loop.FIT_OPTIONS, **given: Any) -> loop.Trained:
    splits = data.load("digits", "train"), data.load("digits", "val")
    return loop.fit(methods.build("finetune", {**PLAIN, **given}), source, lambda: source, *splits, options)


def by_hand(source: Network, steps: int, given: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """The weights after every step, with numpy's arithmetic on torch's gradients."""
    method = methods.build("finetune", {**PLAIN, **given})
    params = method.params
    with torch.random.fork_rng():
        from transferbench.base import keyed_random

        torch.manual_seed(keyed_random.stream("init", params.seed))
        model = copy.deepcopy(method.student(source, lambda: source, 10).model).eval().requires_grad_(True)
    first = {name: np.zeros(p.shape) for name, p in model.named_parameters()}
    second, history = {name: value.copy() for name, value in first.items()}, []
    batches = Loader(data.load("digits", "train"), params).from_step(0)
    for step, batch in zip(range(1, steps + 1), batches, strict=False):
        model.zero_grad()
        F.cross_entropy(model(batch.x), batch.y).backward()
        gradients = {name: p.grad.double().numpy() for name, p in model.named_parameters() if p.grad is not None}
        length = np.sqrt(sum(np.square(g).sum() for g in gradients.values()))
        scale = min(1.0, params.clip / (length + 1e-6)) if params.clip else 1.0
        for name, p in model.named_parameters():
            is_head = name.startswith("head.")
            warm = int(params.warm_up * params.steps)
            rate = params.lr * (params.head_lr if is_head else 1) * min(step / warm if warm else 1, 1)
            decay = params.weight_decay * (params.head_decay if is_head else 1)
            gradient, weight = scale * gradients[name], p.detach().double().numpy()
            if params.optimiser == "adamw":
                first[name] = params.momentum * first[name] + (1 - params.momentum) * gradient
                second[name] = params.beta2 * second[name] + (1 - params.beta2) * gradient**2
                mean, square = first[name] / (1 - params.momentum**step), second[name] / (1 - params.beta2**step)
                weight = weight * (1 - rate * decay) - rate * mean / (np.sqrt(square) + 1e-8)
            else:
                gradient = gradient + decay * weight
                first[name] = gradient if step == 1 else params.momentum * first[name] + gradient
                weight = weight - rate * first[name]
            with torch.no_grad():
                p.copy_(torch.from_numpy(weight))
        history.append({name: p.detach().double().numpy().copy() for name, p in model.named_parameters()})
    return history


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"optimiser": "adamw", "lr": 1e-3, "beta2": 0.95, "weight_decay": 0.3},
        {"clip": 0.05},
        {"warm_up": 0.7},
        {"head_decay": 20.0, "weight_decay": 0.05},
        {"ema": 0.6},
    ],
    ids=lambda given: "-".join(given) or "sgd",
)
def test_weights_are_those_of_the_formula(given: dict[str, Any], source: Network) -> None:
    found = dict(trained(source, steps=4, **given).network.model.named_parameters())
    history = by_hand(source, 4, {"steps": 4, **given})
    expected = history[-1]
    if "ema" in given:
        expected = history[0]
        for weights in history[1:]:
            expected = {name: 0.6 * expected[name] + 0.4 * weights[name] for name in expected}
    for name, value in expected.items():
        assert np.allclose(found[name].numpy(), value, atol=2e-5), name
    if given:
        plain = dict(trained(source, steps=4).network.model.named_parameters())
        assert not all(np.allclose(plain[name].numpy(), value, atol=2e-5) for name, value in expected.items())


def test_warm_up_comes_before_the_schedule() -> None:
    rates = [schedules.warmed("cosine", step, 10, 0.4) for step in range(10)]
    cosine = [0.5 * (1 + np.cos(np.pi * step / 6)) for step in range(6)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, *cosine])
    assert [schedules.warmed("thirds", step, 9, 0.0) for step in range(9)] == [
        schedules.factor("thirds", step, 9) for step in range(9)
    ]
    assert schedules.warmed("constant", 0, 1, 0.99) == 1


def test_every_option_resumes_to_the_same_bits(source: Network, tmp_path: Path) -> None:
    given = {"optimiser": "adamw", "lr": 1e-3, "warm_up": 0.5, "clip": 0.5, "ema": 0.9, "head_decay": 0.0}
    unbroken, broken = trained(source, **given), None
    while broken is None:
        try:
            broken = trained(source, loop.FitOptions(checkpoint=StopsAfter(tmp_path / "c", 1)), **given)
        except StoppedError:
            continue
    assert same(state_of(unbroken.network), state_of(broken.network))


def test_defaults_are_not_stated_and_a_second_average_is_refused(source: Network) -> None:
    names = {"optimiser", "beta2", "warm_up", "clip", "ema", "head_decay"}
    assert not names & stated(methods.build("finetune", {}).params).keys()
    assert (
        names
        == names
        & stated(
            methods.build("finetune", dict.fromkeys(names - {"optimiser"}, 0.5) | {"optimiser": "adamw"}).params
        ).keys()
    )
    splits = data.load("digits", "train"), data.load("digits", "val")
    with pytest.raises(InputError, match="averages the weights"):
        loop.fit(methods.build("renofeation", {**SHORT, "ema": 0.5}), source, lambda: source, *splits)

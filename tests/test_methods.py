"""Contract tests over every method, and each loss against an independent recomputation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Small
from torch import nn

from transferbench import data, keyed, methods, registry, schedules, train
from transferbench.features import Layers
from transferbench.methods import Batch, Network
from transferbench.types import FaultError, InputError
from transferbench.victims import networks

LAYERS = Layers(("stage1", "stage2", "stage3", "stage4"), "head")
SHORT: dict[str, Any] = {"steps": 8, "batch_size": 32, "seed": 3}
EXTRA: dict[str, dict[str, Any]] = {
    "eat": {"at_iter": 2, "l_eps": "0.1,1.5"},
    "madry": {"k": 2, "eps": "0.1"},
    "renofeation": {"swa_snapshots": 2},
}
METHODS = list(registry.entries("methods"))


def settings(id: str) -> dict[str, Any]:
    return {**SHORT, **EXTRA.get(id, {})}


def fit(id: str, source: Network | None, given: dict[str, Any] | None = None) -> train.Trained:
    splits = data.load("digits", "train"), data.load("digits", "val")
    method = methods.build(id, given or settings(id))
    return train.fit(method, source, lambda: Network(*networks.build("small-resnet", 10)[:2]), *splits)


@pytest.fixture
def source(small: Small) -> Network:
    return Network(small.model, LAYERS)


def state_of(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("id", METHODS)
def test_one_seed_is_one_result_and_the_source_is_left_alone(id: str, source: Network) -> None:
    before, modes = state_of(source), [module.training for module in source.model.modules()]
    random_state = torch.get_rng_state()
    first, second = fit(id, source), fit(id, source)
    assert same(state_of(first.network), state_of(second.network))
    assert same(before, state_of(source))
    assert modes == [module.training for module in source.model.modules()]
    assert torch.equal(random_state, torch.get_rng_state())
    other = fit(id, source, {**settings(id), "seed": 4})
    assert not same(state_of(first.network), state_of(other.network))
    assert all(torch.isfinite(tensor).all() for tensor in state_of(first.network).values())
    assert not any(module.training for module in first.network.model.modules())
    assert first.log[-1]["step"] == SHORT["steps"] - 1


@pytest.mark.parametrize("id", METHODS)
def test_only_what_a_phase_trains_changes(id: str, source: Network) -> None:
    method = methods.build(id, settings(id))
    with torch.random.fork_rng():
        student = method.student(source, lambda: Network(*networks.build("small-resnet", 10)[:2]), 10)
    phases = method.phases()
    assert sum(phase.steps for phase in phases) == SHORT["steps"]
    step, digits = 0, data.load("digits", "train")
    for phase in phases:
        before = state_of(student)
        step = train._run(method, phase, student, source, digits, "cpu", step, SHORT["steps"], [], None)
        after = state_of(student)
        for name, _ in student.model.named_parameters():
            changed = not torch.equal(before[name], after[name])
            assert changed == phase.trains(name), f"{name} in phase {phase.name}"
        moved = any(not torch.equal(before[n], after[n]) for n in before if "running" in n)
        assert moved is not phase.freeze_statistics


@pytest.mark.parametrize("id", METHODS)
def test_every_method_has_the_common_keys_and_refuses_others(id: str) -> None:
    given = {
        "steps": "7",
        "batch_size": "8",
        "lr": "1e-3",
        "momentum": "0.5",
        "weight_decay": "0",
        "schedule": "cosine",
    }
    params = methods.build(id, {**given, "seed": "5"}).params
    assert (params.steps, params.lr, params.momentum, params.schedule, params.seed) == (7, 1e-3, 0.5, "cosine", 5)
    for name, value in {
        "steps": "0",
        "lr": "-1",
        "lr ": "1",
        "momentum": "1",
        "schedule": "cosin",
        "batch_size": "x",
    }.items():
        with pytest.raises(InputError, match=name.strip()):
            methods.build(id, {name: value})


def test_paper_defaults_are_those_of_the_code() -> None:
    lwf = methods.build("lwf", {}).params
    assert (lwf.steps, lwf.lr, lwf.feat_sim, lwf.weight_decay, lwf.distance) == (20_000, 1e-3, 0.005, 2e-4, "l1")
    reno = methods.build("renofeation", {})
    assert [(phase.steps, phase.lr, phase.schedule) for phase in reno.phases()] == [
        (90_000, 1e-2, "cosine"),
        (30_000, 5e-3, "constant"),
    ]
    assert reno.phases()[1].average_every == 500
    assert (reno.params.feat_lmda, reno.params.weight_decay, reno.params.dropout, reno.params.beta) == (
        5,
        5e-3,
        0.1,
        1e-2,
    )
    eat = methods.build("eat", {}).params
    assert (eat.l_norms, eat.l_eps, eat.at_iter, eat.lr, eat.schedule) == ("Linf,L1", "8/255,12", 10, 0.05, "thirds")


def batch_of(n: int = 8) -> Batch:
    digits = data.load("digits", "train")
    return Batch(digits.images[:n], digits.labels[:n], keyed.row_keys(1, digits.ids[:n]), 0)


def student_of(id: str, source: Network, given: dict[str, Any]) -> tuple[Any, Network]:
    method = methods.build(id, {**settings(id), **given})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = method.student(source, lambda: Network(*networks.build("small-resnet", 10)[:2]), 10)
    student.model.eval()
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return method, student


def features(model: Any, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Stage outputs and the pooled feature by walking the network by hand."""
    stages, x = [], model.stem(x)
    for name in LAYERS.stages:
        x = getattr(model, name)(x)
        stages.append(x)
    return stages, x.mean((2, 3))


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_lwf_by_hand(source: Network, distance: str) -> None:
    method, student = student_of("lwf", source, {"feat_sim": 0.3, "distance": distance})
    batch = batch_of()
    with torch.no_grad():
        parts = method.loss(student, source, batch)
    mine, theirs = features(student.model, batch.x)[1], features(source.model, batch.x)[1]
    expected = 0.0
    for a, b in zip(mine.tolist(), theirs.tolist(), strict=True):
        expected += sum(abs(p - q) if distance == "l1" else (p - q) ** 2 for p, q in zip(a, b, strict=True)) / 8
    assert float(parts["features"]) == pytest.approx(0.3 * expected, rel=1e-4)
    with torch.no_grad():
        expected = float(F.cross_entropy(student.model(batch.x), batch.y))
    assert float(parts["ce"]) == pytest.approx(expected, rel=1e-5)


def test_delta_by_hand(source: Network) -> None:
    method, student = student_of("delta", source, {"feat_lmda": 2.0, "beta": 0.04})
    batch = batch_of()
    with torch.no_grad():
        parts = method.loss(student, source, batch)
    mine, theirs = features(student.model, batch.x)[0], features(source.model, batch.x)[0]
    expected = sum(float(((a - b) ** 2).sum()) / a.numel() for a, b in zip(mine, theirs, strict=True))
    assert float(parts["features"]) == pytest.approx(2.0 * expected, rel=1e-4)
    head: Any = student.model.head
    norm = float(head.weight.square().sum() + head.bias.square().sum())
    assert float(parts["head"]) == pytest.approx(0.02 * norm, rel=1e-5)


def test_renofeation_starts_from_nothing_and_matches_before_its_dropout(source: Network) -> None:
    method = methods.build("renofeation", {**settings("renofeation"), "dropout": 0.5})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = method.student(source, lambda: None, 10)  # type: ignore[arg-type, return-value]
    for name, module in student.model.named_modules():
        if isinstance(module, nn.Conv2d):
            assert not torch.equal(module.weight, source.model.get_submodule(name).weight)
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.running_mean, torch.zeros_like(module.running_mean))  # type: ignore[arg-type]
    copy_of = copy.deepcopy(student)
    copy_of.model.train()
    batch = batch_of(32)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = method.loss(copy_of, source, batch)
    # Stage 1's match does not see the dropout behind stage 1; the logits do.
    copy_of.model.load_state_dict(student.model.state_dict())
    with torch.random.fork_rng():
        torch.manual_seed(2)
        second = method.loss(copy_of, source, batch)
    assert float(first["ce"]) != float(second["ce"])
    copy_of.model.eval()
    assert torch.equal(copy_of.model(batch.x), copy_of.model(batch.x)), "no hook is left behind"


def test_the_average_is_the_mean_of_its_snapshots(source: Network) -> None:
    method = methods.build("finetune", SHORT)
    with torch.random.fork_rng():
        student = method.student(source, lambda: None, 10)  # type: ignore[arg-type, return-value]
    digits, seen = data.load("digits", "train"), []
    plain = copy.deepcopy(student)
    for steps in (2, 4, 6):
        one = copy.deepcopy(plain)
        train._run(method, methods.Phase("p", steps, 0.01, "constant"), one, source, digits, "cpu", 0, 6, [], None)
        seen.append([parameter.clone() for parameter in one.model.parameters()])
    averaged = methods.Phase("p", 6, 0.01, "constant", average_every=2)
    train._run(method, averaged, student, source, digits, "cpu", 0, 6, [], None)
    for got, *snapshots in zip(student.model.parameters(), *seen, strict=True):
        assert torch.allclose(got, torch.stack(snapshots).mean(0), atol=1e-6)


def test_eat_draws_the_norm_that_is_less_robust_more_often() -> None:
    method: Any = methods.build("eat", settings("eat"))
    method.student(None, lambda: Network(*networks.build("small-resnet", 10)[:2]), 10)
    drawn = [method._draw(step) for step in range(400)]
    assert 160 < drawn.count("L1") < 240, "equal until both norms were seen"
    method.state = {"Linf seen": 10, "Linf survived": 9, "L1 seen": 10, "L1 survived": 1}
    drawn = [method._draw(step) for step in range(400)]
    assert 330 < drawn.count("L1") < 390, "in proportion to 1 - robust accuracy: .9 of the draws"
    method.state = {"Linf seen": 10, "Linf survived": 10, "L1 seen": 10, "L1 survived": 10}
    assert {method._draw(step) for step in range(50)} == {"Linf", "L1"}


def test_schedules_have_their_values() -> None:
    values = {name: [schedules.factor(name, step, 100) for step in range(100)] for name in schedules.SCHEDULES}
    assert set(values["constant"]) == {1.0}
    assert [values["step"][at] for at in (0, 49, 50, 74, 75, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert [values["thirds"][at] for at in (0, 33, 34, 66, 67, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert values["cosine"][0] == 1
    assert values["cosine"][50] == pytest.approx(0.5)
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], 1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, 100)
    for step in range(100):
        assert values["onecycle"][step] == pytest.approx(reference.get_last_lr()[0], rel=1e-6, abs=1e-9)
        optimiser.step()
        reference.step()


def test_bad_trainings_are_refused(source: Network) -> None:
    with pytest.raises(InputError, match="fewer than a batch of 500"):
        fit("finetune", source, {**SHORT, "batch_size": 500})
    with pytest.raises(InputError, match="lwf needs a source"):
        fit("lwf", None)
    with pytest.raises(FaultError, match="the loss is"):
        fit("finetune", source, {**SHORT, "steps": 40, "lr": 1e12})
    with pytest.raises(InputError, match="do not pair up"):
        fit("eat", source, {**SHORT, "l_norms": "Linf", "l_eps": "0.1,1"})


def test_batches_go_through_every_epoch_once() -> None:
    digits = data.load("digits", "train")
    seen: list[int] = []
    by_image = {image.numpy().tobytes(): int(id_) for image, id_ in zip(digits.images, digits.ids, strict=True)}
    params = methods.build("finetune", {**SHORT, "batch_size": 40}).params
    for batch, _ in zip(train._batches(digits, params, 0, "cpu"), range(10), strict=False):
        seen += [by_image[image.numpy().tobytes()] for image in batch.x]
    assert sorted(seen[:200]) == sorted(seen[200:]) == sorted(digits.ids.tolist())
    assert seen[:200] != seen[200:]
    resumed = next(iter(train._batches(digits, params, 7, "cpu")))
    straight = [batch for batch, _ in zip(train._batches(digits, params, 0, "cpu"), range(8), strict=False)][7]
    assert torch.equal(resumed.x, straight.x)
    assert torch.equal(resumed.noise, straight.noise)


def test_a_source_of_another_shape_is_refused() -> None:
    from transferbench.victims import load

    digits = data.load("digits", "train")
    recipe = train.Recipe("v", "finetune", {}, "x", "")
    with pytest.raises(InputError, match=r"takes images of shape \(3, 32, 32\)"):
        train.train_victim(recipe, methods.build("finetune", SHORT), load("AA_ResNet18"), digits, digits)

"""Contract tests over every method, and each loss against an independent recomputation."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.nets import Small
from support.trainings import LAYERS, SHORT, StoppedError, StopsAfter, method_ids, same, settings, state_of
from torch import nn

from transferbench import data, methods
from transferbench.base import keyed_random, registry, schedules
from transferbench.base.checkpoint import NO_CHECKPOINT
from transferbench.base.errors import FaultError, InputError
from transferbench.methods import Batch, Network
from transferbench.models import networks, trained, victims
from transferbench.store.checkpoint_file import CheckpointFile
from transferbench.training import loop
from transferbench.training.batches import Loader
from transferbench.training.victim import Recipe, train_victim

METHODS = method_ids()


def fit(
    id: str, source: Network | None, given: dict[str, Any] | None = None, checkpoint: CheckpointFile = NO_CHECKPOINT
) -> loop.Trained:
    splits = data.load("digits", "train"), data.load("digits", "val")
    method = methods.build(id, given or settings(id))
    fresh = lambda: Network(*networks.build("small-resnet", 10)[:2])  # noqa: E731
    return loop.fit(method, source, fresh, *splits, loop.FitOptions(checkpoint=checkpoint))


@pytest.fixture
def source(small: Small) -> Network:
    return Network(small.model, LAYERS)


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
def test_a_training_that_is_killed_again_and_again_gives_the_same_weights(
    id: str, source: Network, tmp_path: Path
) -> None:
    """Killed after every single step, each time begun anew by another method object."""
    unbroken = fit(id, source)
    kills, broken = 0, None
    while broken is None:
        try:
            broken = fit(id, source, checkpoint=StopsAfter(tmp_path / "c", 1))
        except StoppedError:
            kills += 1
    assert kills >= 5
    assert same(state_of(unbroken.network), state_of(broken.network))
    assert broken.log == unbroken.log
    assert broken.validation_accuracy == unbroken.validation_accuracy


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
        loader = Loader(digits, method.params)
        training = loop._Training(method, student, source, loader, loop.FIT_OPTIONS, SHORT["steps"])
        list(loop._PhaseSteps(training, phase, step).run())
        step += phase.steps
        after = state_of(student)
        for name, _ in student.model.named_parameters():
            changed = not torch.equal(before[name], after[name])
            assert changed == phase.trains(name), f"{name} in phase {phase.name}"
        moved = any(not torch.equal(before[n], after[n]) for n in before if "running" in n)
        assert moved is (method.params.freeze_bn == "none" and phase.mode == "train")


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
    return Batch(digits.images[:n], digits.labels[:n], keyed_random.row_keys(1, digits.ids[:n]), 0)


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

    def training(network: Network) -> loop._Training:
        return loop._Training(method, network, source, Loader(digits, method.params), loop.FIT_OPTIONS, 6)

    for steps in (2, 4, 6):
        one = copy.deepcopy(plain)
        constant = methods.Phase("p", steps, 0.01, "constant")
        list(loop._PhaseSteps(training(one), constant, 0).run())
        seen.append([parameter.clone() for parameter in one.model.parameters()])
    averaged = methods.Phase("p", 6, 0.01, "constant", average_every=2)
    list(loop._PhaseSteps(training(student), averaged, 0).run())
    for got, *snapshots in zip(student.model.parameters(), *seen, strict=True):
        assert torch.allclose(got, torch.stack(snapshots).mean(0), atol=1e-6)


def test_eat_draws_the_norm_that_is_less_robust_more_often() -> None:
    method: Any = methods.build("eat", settings("eat"))
    method.student(None, lambda: Network(*networks.build("small-resnet", 10)[:2]), 10)
    drawn = [method._draw(step) for step in range(400)]
    assert 160 < drawn.count("L1") < 240, "equal until both norms were seen"
    method.state = {"Linf attacked": 10, "Linf survived": 9, "L1 attacked": 10, "L1 survived": 1}
    drawn = [method._draw(step) for step in range(400)]
    assert 330 < drawn.count("L1") < 390, "in proportion to 1 - robust accuracy: .9 of the draws"
    method.state = {"Linf attacked": 10, "Linf survived": 10, "L1 attacked": 10, "L1 survived": 10}
    assert {method._draw(step) for step in range(50)} == {"Linf", "L1"}


def test_schedules_have_their_values() -> None:
    values = {name: [schedules.factor(name, step, 100) for step in range(100)] for name in schedules.NAMES}
    assert set(values["constant"]) == {1.0}
    assert [values["step"][at] for at in (0, 48, 49, 73, 74, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert [values["piecewise-constant"][at] for at in (0, 50, 51, 75, 76, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert [values["thirds"][at] for at in (0, 32, 33, 65, 66, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert [values["late"][at] for at in (0, 86, 87, 99)] == [1, 1, 0.1, 0.1]
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
    digits = data.load("digits", "train")
    alone = replace(digits.select((digits.labels == 0).nonzero().flatten()), classes=("zero",))
    with pytest.raises(InputError, match=r"one class \('zero'\)"):
        loop.fit(methods.build("natural", SHORT), None, lambda: source, alone, alone)
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
    for batch, _ in zip(Loader(digits, params).from_step(0), range(10), strict=False):
        seen += [by_image[image.numpy().tobytes()] for image in batch.x]
    assert sorted(seen[:200]) == sorted(seen[200:]) == sorted(digits.ids.tolist())
    assert seen[:200] != seen[200:]
    resumed = next(Loader(digits, params).from_step(7))
    straight = [batch for batch, _ in zip(Loader(digits, params).from_step(0), range(8), strict=False)][7]
    assert torch.equal(resumed.x, straight.x)
    assert torch.equal(resumed.noise, straight.noise)


def test_a_source_of_another_shape_is_refused() -> None:
    from transferbench.models.victims import load

    digits = data.load("digits", "train")
    recipe = Recipe("v", "finetune", "x", "")
    with pytest.raises(InputError, match=r"takes images of shape \(3, 32, 32\)"):
        train_victim(recipe, methods.build("finetune", SHORT), load("AA_ResNet18"), (digits, digits))


# The methods of the seeds beyond the first nine, each against an independent recomputation.
def test_l2sp_by_hand(source: Network) -> None:
    for head in ("seed", "original"):
        method, student = student_of("l2sp", source, {"l2sp_lmda": 0.3, "beta": 0.04, "head": head})
        expected = 0.0
        for name, module in student.model.named_modules():
            if not isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
                continue
            for kind in ("weight", "bias"):
                parameter = getattr(module, kind)
                if parameter is not None and (head == "seed" or name != "head"):
                    # `student_of` moves every parameter by its own draw from where the method left it.
                    moved = 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
                    expected += float(moved.square().sum())
        batch = batch_of()
        with torch.no_grad():
            parts = method.loss(student, source, batch)
        assert float(parts["start"]) == pytest.approx(0.3 * expected, rel=1e-3)
        linear: Any = student.model.head
        norm = float(linear.weight.square().sum() + linear.bias.square().sum())
        assert float(parts["head"]) == pytest.approx(0.02 * norm, rel=1e-5)
    assert methods.build("l2sp", {}).params.weight_decay == 0


@pytest.mark.parametrize("id", ["retrain", "delta-r"])
def test_reinitialised_methods_keep_nothing_of_the_source(id: str, source: Network) -> None:
    method = methods.build(id, settings(id))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = method.student(source, lambda: None, 10)  # type: ignore[arg-type, return-value]
    for name, module in student.model.named_modules():
        if isinstance(module, nn.Conv2d):
            theirs = source.model.get_submodule(name).weight
            assert abs(float(torch.corrcoef(torch.stack([module.weight.flatten(), theirs.flatten()]))[0, 1])) < 0.3
            bound = (module.in_channels * module.kernel_size[0] ** 2) ** -0.5
            assert float(module.weight.abs().max()) <= bound, "PyTorch's default, not torchvision's"
    parts = method.loss(student, source, batch_of())
    assert set(parts) == ({"ce", "head"} if id == "retrain" else {"ce", "head", "features"})


def test_unfreeze_counts_blocks_from_the_end(source: Network) -> None:
    trained = []
    for blocks in range(1, 7):
        method = methods.build("unfreeze", {**settings("unfreeze"), "blocks": blocks})
        with torch.random.fork_rng():
            student = method.student(source, lambda: None, 10)  # type: ignore[arg-type, return-value]
        (phase,) = method.phases()
        names = {name for name, _ in student.model.named_parameters() if phase.trains(name)}
        trained.append({name.split(".")[0] for name in names})
        assert method.params.freeze_bn == "stats"
    assert trained == [
        {"head"},
        {"head", "stage4"},
        {"head", "stage4", "stage3"},
        {"head", "stage4", "stage3", "stage2"},
        {"head", "stage4", "stage3", "stage2", "stage1"},
        {"head", "stage4", "stage3", "stage2", "stage1", "stem"},
    ]
    with pytest.raises(InputError, match="blocks=7, this network has 6"):
        fit("unfreeze", source, {**settings("unfreeze"), "blocks": 7})


def test_madrys_network_has_the_studys_17_blocks() -> None:
    from transferbench.methods.unfreeze import blocks

    built = networks.build("madry-wrn-32-10", 10)
    found = blocks(Network(built.model, built.layers))
    assert len(found) == 17
    assert set(found[0]) == {"bn.weight", "bn.bias", "head.weight", "head.bias"}
    assert found[-1] == ["conv1.weight"]


def small_norms(**more: Any) -> dict[str, Any]:
    return {"l_norms": "Linf,L2,L1", "l_eps": "0.1,0.4,1.5", "at_iter": 3, **more}


def test_avg_and_max_by_hand(source: Network) -> None:
    batch = batch_of()
    for id in ("avg", "max"):
        method, student = student_of(id, source, small_norms())
        with torch.no_grad():
            points = {norm: method.worst(student, batch, norm) for norm in ("Linf", "L2", "L1")}
            rows = torch.stack(
                [F.cross_entropy(student.model(points[norm]), batch.y, reduction="none") for norm in points]
            )
            got = float(method.loss(student, source, batch)["adversarial ce"])
        by_hand = [max(column) if id == "max" else sum(column) / 3 for column in rows.T.tolist()]
        assert got == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
        for norm, eps in zip(points, (0.1, 0.4, 1.5), strict=True):
            apart = (points[norm] - batch.x).flatten(1)
            order = {"Linf": float("inf"), "L2": 2, "L1": 1}[norm]
            assert float(apart.norm(order, dim=1).max()) <= eps * (1 + 1e-5)


def test_sat_draws_uniformly_whatever_was_survived() -> None:
    method: Any = methods.build("sat", {**settings("sat"), **small_norms()})
    method.student(None, lambda: Network(*networks.build("small-resnet", 10)[:2]), 10)
    method.state = {f"{norm} attacked": 10 for norm in ("Linf", "L2", "L1")}
    method.state |= {"Linf survived": 9, "L2 survived": 5, "L1 survived": 0}
    drawn = [method._draw(step) for step in range(600)]
    assert all(150 < drawn.count(norm) < 250 for norm in ("Linf", "L2", "L1"))


def test_apgd_at_takes_one_norm_and_its_own_iterations(source: Network) -> None:
    method: Any = methods.build("apgd-at", {**SHORT, "l_norms": "L2", "l_eps": "0.4", "l_iters": "7"})
    with torch.random.fork_rng():
        method.student(source, lambda: None, 10)
    assert [(name, count) for name, (_, count) in method.attacks.items()] == [("L2", 7)]
    for bad, complaint in (
        ({"l_norms": "L2,L1", "l_eps": "1,1"}, "takes one norm"),
        ({"l_iters": "x"}, "whole numbers"),
        ({"l_iters": "3,4"}, "do not pair up"),
    ):
        with pytest.raises(InputError, match=complaint):
            fit("apgd-at", source, {**SHORT, **bad})


def test_msd_takes_the_worst_candidate_of_every_step(source: Network) -> None:
    method, student = student_of("msd", source, {"l_eps": "0.1,0.4,1.5", "at_iter": 2})
    batch, radii = batch_of(4), {"Linf": 0.1, "L2": 0.4, "L1": 1.5}

    def loss_of(x: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(student.model(x), batch.y, reduction="none")

    # Two steps by plain loops over the examples, candidates from the method's own step rules checked below.
    point, best, highest = batch.x.clone(), batch.x.clone(), loss_of(batch.x).detach()
    for step in range(2):
        x = point.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(x).sum(), x)
        made = {norm: method.candidate(norm, batch, point, gradient, step) for norm in radii}
        for norm, candidate in made.items():
            apart = (candidate - batch.x).flatten(1).norm({"Linf": float("inf"), "L2": 2, "L1": 1}[norm], dim=1)
            assert float(apart.max()) <= radii[norm] * (1 + 1e-5)
            assert 0 <= float(candidate.min()) <= float(candidate.max()) <= 1
        if step == 0:
            wanted = (batch.x + 0.1 / 6 * gradient.sign()).clamp(0, 1)
            assert torch.allclose(made["Linf"], wanted.clamp(batch.x - 0.1, batch.x + 0.1))
            moved = ((made["L1"] - batch.x).abs() > 1e-7).flatten(1).sum(1)
            assert bool((moved <= 20).all()), "at most 20 entries move"
        with torch.no_grad():
            losses = {norm: loss_of(candidate) for norm, candidate in made.items()}
        for row in range(len(point)):
            norm = max(losses, key=lambda name: float(losses[name][row]))
            point[row] = made[norm][row]
            if float(losses[norm][row]) > float(highest[row]):
                best[row], highest[row] = made[norm][row], losses[norm][row]
    assert torch.allclose(method.worst(student.model, batch), best, atol=1e-6)


def test_msd_moves_only_where_the_box_leaves_room() -> None:
    from transferbench.methods.msd import _sparse_sign

    point = torch.tensor([[0.0, 1.0, 0.5, 0.5, 0.2]])
    gradient = torch.tensor([[-9.0, 8.0, 3.0, -2.0, 1.0]])
    assert _sparse_sign(point, gradient, 2).tolist() == [[0, 0, 1, -1, 0]]
    assert _sparse_sign(point, gradient, 5).tolist() == [[0, 0, 1, -1, 1]]


def test_trades_by_hand(source: Network) -> None:
    method, student = student_of("trades", source, {"eps": "0.1", "k": 3, "beta": 2.0})
    batch = batch_of(4)
    with torch.no_grad():
        parts = method.loss(student, source, batch)
        x = method.attacked(student.model, batch)
        clean, attacked = student.model(batch.x).softmax(1), student.model(x).softmax(1)
    expected = 0.0
    for p, q in zip(clean.tolist(), attacked.tolist(), strict=True):
        expected += sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q, strict=True)) / 4
    assert expected > 0
    assert float(parts["divergence"]) == pytest.approx(2 * expected, rel=1e-3)
    assert float((x - batch.x).abs().max()) <= 0.1 + 1e-6
    with torch.no_grad():
        start = F.kl_div(
            student.model(batch.x + 1e-3).log_softmax(1), clean.log(), reduction="batchmean", log_target=True
        )
    assert expected > float(start), "the attack ascends the divergence"


def test_free_uses_one_backward_for_weights_and_perturbation(source: Network) -> None:
    method, student = student_of("free", source, {"eps": "0.1", "m": 3})
    batch = batch_of(4)
    delta = torch.zeros_like(batch.x)
    for _ in range(3):
        loss = method.loss(student, None, batch)["adversarial ce"]
        x = (batch.x + delta).requires_grad_()
        wanted = F.cross_entropy(student.model(x.clamp(0, 1)), batch.y)
        assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
        (slope,) = torch.autograd.grad(wanted, x)
        delta = (delta + 0.1 * slope.sign()).clamp(-0.1, 0.1)
        loss.backward()
    assert method.replays == 3


def test_replayed_batches_come_m_times_and_resume_in_the_middle() -> None:
    digits = data.load("digits", "train")
    params = methods.build("finetune", {**SHORT, "batch_size": 40}).params
    plain = [batch for batch, _ in zip(Loader(digits, params).from_step(0), range(6), strict=False)]
    thrice = [batch for batch, _ in zip(Loader(digits, params).from_step(0, 3), range(18), strict=False)]
    assert [batch.step for batch in thrice] == list(range(18))
    assert all(torch.equal(batch.x, plain[step // 3].x) for step, batch in enumerate(thrice))
    middle = next(Loader(digits, params).from_step(16, 3))
    assert middle.step == 16
    assert torch.equal(middle.x, thrice[16].x)


def test_igam_by_hand(source: Network) -> None:
    given = {"input_noise": "0", "gamma": 3.0, "beta": 2.0, "match_share": 1.0, "teacher_steps": 1, "disc_layers": 2}
    method, student = student_of("igam", source, {**given, "disc_update_steps": 1000, "steps": 8})
    batch = batch_of(4)._replace(step=1)
    parts = method.loss(student, source, batch)

    def slope(model: Any, row: int) -> torch.Tensor:
        x = batch.x[row : row + 1].clone().requires_grad_()
        probability = model(x).softmax(1)[0, batch.y[row]]
        return torch.autograd.grad(probability, x)[0] / 255

    mine = [slope(student.model, row) for row in range(4)]
    theirs = [slope(method.teacher.model, row) for row in range(4)]
    expected = sum(float((a - b).square().sum()) for a, b in zip(mine, theirs, strict=True))
    assert float(parts["gradients"].detach()) == pytest.approx(3 * expected, rel=1e-3)
    kinds = torch.tensor([0] * 4 + [1] * 4)
    told = F.cross_entropy(method.discriminator(torch.cat([*mine, *theirs])), kinds)
    assert float(parts["discriminator"].detach()) == pytest.approx(-2 * float(told.detach()), rel=1e-4)
    assert not any(parameter.requires_grad for parameter in method.discriminator.parameters())
    # The student is pushed through its input gradients: a second derivative reaches its weights.
    (pushed,) = torch.autograd.grad(parts["gradients"], student.model.stem[0].weight)
    assert float(pushed.abs().sum()) > 0


def test_igam_waits_trains_its_teacher_and_then_its_discriminator(source: Network) -> None:
    given = {
        "steps": 8,
        "match_share": 0.5,
        "teacher_steps": 2,
        "teacher_batch_size": 48,
        "disc_update_steps": 2,
        "disc_layers": 2,
        "batch_size": 32,
    }
    method: Any = methods.build("igam", {**given, "seed": 0, "lr": 0.01})
    splits = data.load("digits", "train"), data.load("digits", "val")
    heads, judges = [], []
    loss = method.loss

    def watched(student: Network, source: Network | None, batch: Batch) -> dict[str, torch.Tensor]:
        parts = loss(student, source, batch)
        heads.append(method.teacher.model.head.weight.detach().clone())
        judge = method.discriminator
        judges.append(None if judge is None else judge.head.weight.detach().clone())
        return parts

    method.loss = watched
    done = loop.fit(method, source, lambda: Network(*networks.build("small-resnet", 10)[:2]), *splits)
    # 48 images are there with the second and with the third batch of 32.
    assert [not torch.equal(a, b) for a, b in itertools.pairwise(heads)] == [True, True, *[False] * 5]
    assert judges[:4] == [None] * 4, "cross-entropy alone in the first half"
    assert not torch.equal(judges[4], judges[5]), "a step after the student's at 4 and 6"
    assert torch.equal(judges[5], judges[6])
    assert not torch.equal(judges[6], judges[7])
    assert set(done.log[-1]) == {"step", "phase", "lr", "ce", "discriminator", "gradients"}
    trunk = [name for name, _ in method.teacher.model.named_parameters() if not name.startswith("head")]
    theirs = dict(source.model.named_parameters())
    assert all(torch.equal(dict(method.teacher.model.named_parameters())[name], theirs[name]) for name in trunk)


def test_igams_discriminator_sees_direction_and_not_size() -> None:
    from transferbench.methods.igam import Discriminator, _pad_same

    torch.manual_seed(0)
    judge = Discriminator((1, 8, 8), 5, 4).eval()
    gradient = torch.randn(3, 1, 8, 8)
    assert judge(gradient).shape == (3, 2)
    assert torch.allclose(judge(gradient), judge(5 * gradient + 2), atol=1e-4)
    for side in (8, 4, 2, 1, 5, 3):
        assert F.conv2d(_pad_same(torch.zeros(1, 1, side, side)), torch.zeros(1, 1, 4, 4), stride=2).shape[2] == -(
            -side // 2
        )


def test_label_smoothing_is_the_textbooks(source: Network) -> None:
    method, student = student_of("finetune", source, {"label_smoothing": 0.2})
    batch = batch_of(3)
    with torch.no_grad():
        logs = student.model(batch.x).log_softmax(1).tolist()
        got = float(method.loss(student, source, batch)["ce"])
    expected = 0.0
    for row, label in zip(logs, batch.y.tolist(), strict=True):
        expected -= sum((0.8 * (k == label) + 0.02) * value for k, value in enumerate(row)) / 3
    assert got == pytest.approx(expected, rel=1e-5)


def naive_attention(source: Network, student: Network, batches: list[Batch], steps: int) -> list[torch.Tensor]:
    """DELTA's channel weights by walking the network by hand, one silenced channel at a time."""
    model: Any = copy.deepcopy(source.model)
    model.head = copy.deepcopy(student.model.head)
    model.eval()
    optimiser = torch.optim.SGD(model.head.parameters(), 0.01, momentum=0.9)
    for step in range(steps):
        batch = batches[step % len(batches)]
        loss = F.cross_entropy(model.head(features(model, batch.x)[1].detach()), batch.y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = []
    for silenced in range(4):
        rises = []
        for channel in [None, *range(getattr(model, LAYERS.stages[silenced]).conv2.out_channels)]:
            total = 0.0
            for batch in batches[:2]:
                with torch.no_grad():
                    x = model.stem(batch.x)
                    for number, name in enumerate(LAYERS.stages):
                        x = getattr(model, name)(x)
                        if number == silenced and channel is not None:
                            x = x.clone()
                            x[:, channel] = 0
                    total += float(F.cross_entropy(model.head(x.mean((2, 3))), batch.y, reduction="sum"))
            rises.append(total)
        rise = np.array(rises[1:]) - rises[0]
        scaled = np.exp((rise - rise.mean()) / rise.std() / 5)
        found.append(torch.tensor(scaled / scaled.sum()))
    return found


def test_deltas_attention_by_hand(source: Network) -> None:
    given = {"feat_lmda": 0.01, "attention": True, "attention_steps": 7, "attention_batches": 2}
    method, student = student_of("delta", source, given)
    batches = list(Loader(data.load("digits", "train"), method.params).epoch())
    method.prepare(student, source, lambda: iter(batches))
    expected = naive_attention(source, student, batches, 7)
    for got, weights in zip(method.channels, expected, strict=True):
        assert torch.allclose(got.double(), weights, rtol=1e-3)
        assert float(got.sum()) == pytest.approx(1, rel=1e-5)
    assert max(float(part.max() / part.min()) for part in expected) > 1.5, "channels do differ"

    batch = batch_of()
    with torch.no_grad():
        parts = method.loss(student, source, batch)
    total = 0.0
    pairs = zip(features(student.model, batch.x)[0], features(source.model, batch.x)[0], method.channels, strict=True)
    for mine, theirs, weights in pairs:
        rows, channels, height, width = mine.shape
        for row, channel in itertools.product(range(rows), range(channels)):
            apart = float((mine[row, channel] - theirs[row, channel]).square().sum())
            total += channels * float(weights[channel]) * apart / (height * width)
    assert float(parts["features"]) == pytest.approx(0.01 * 0.5 * total, rel=1e-3)


@pytest.mark.parametrize("id", ["delta", "delta-r"])
def test_attention_survives_being_killed(id: str, source: Network, tmp_path: Path) -> None:
    given = {**settings(id), "attention": True, "attention_steps": 3, "attention_batches": 1}
    unbroken = fit(id, source, given)
    broken = None
    while broken is None:
        try:
            broken = fit(id, source, given, StopsAfter(tmp_path / "c", 1))
        except StoppedError:
            continue
    assert same(state_of(unbroken.network), state_of(broken.network))


@pytest.mark.parametrize(
    ("given", "network"),
    [
        ({"hidden": "24"}, "mlp-head:24:small-resnet"),
        ({"hidden": "24,12", "head_bn": True, "head_dropout": 0.5}, "mlp-head:24,12+bn+dropout0.5:small-resnet"),
    ],
)
@pytest.mark.parametrize("id", ["probe", "lwf"])
def test_a_head_with_hidden_layers_is_trained_saved_and_loaded(
    id: str, given: dict[str, Any], network: str, source: Network, tmp_path: Path, small_victim: Any
) -> None:
    digits = data.load("digits", "train"), data.load("digits", "val")
    method = methods.build(id, {**SHORT, **given})
    recipe = Recipe("v", id, "digits", "")
    model, card, _ = train_victim(recipe, method, small_victim, digits)
    assert card.network == network
    trained.save(tmp_path / "v", model.state_dict(), card)
    loaded = victims.load(str(tmp_path / "v"))
    assert torch.equal(loaded.model(digits[1].images[:8]), model(digits[1].images[:8]))
    kept = small_victim.model.state_dict()
    trunk = {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
    if id == "probe":
        assert all(torch.equal(value, kept[name]) for name, value in trunk.items()), "features are the source's"
    else:
        assert all(torch.equal(value, kept[name]) for name, value in trunk.items() if "running" in name)
    heads = [name for name in model.state_dict() if name.startswith("head.") and name.endswith("weight")]
    assert len(heads) == (5 if given.get("head_bn") else 2)
    if given.get("head_bn"):
        assert not torch.equal(model.state_dict()["head.1.running_mean"], torch.zeros(24)), "a new norm does learn"


@pytest.mark.parametrize("frozen", ["none", "stats", "affine", "both"])
def test_freeze_bn(frozen: str, source: Network) -> None:
    done = fit("finetune", source, {**SHORT, "freeze_bn": frozen}).network.model.state_dict()
    before = source.model.state_dict()
    norms = [name.removesuffix("running_mean") for name in before if name.endswith("running_mean")]
    assert len(norms) > 5
    for norm in norms:
        kept = {
            part: torch.equal(done[norm + part], before[norm + part]) for part in ("running_mean", "weight", "bias")
        }
        assert kept["running_mean"] is (frozen in ("stats", "both"))
        assert kept["weight"] is kept["bias"] is (frozen in ("affine", "both"))
    assert not torch.equal(done["stem.0.weight"], before["stem.0.weight"])


@pytest.mark.parametrize("id", ["madry", "trades", "free", "eat", "sat", "avg", "max", "msd", "apgd-at"])
def test_adversarial_methods_train_from_scratch(id: str, source: Network) -> None:
    alone = fit(id, None)
    beside = fit(id, source, {**settings(id), "from_scratch": True})
    assert same(state_of(alone.network), state_of(beside.network)), "nothing of the source but its architecture"
    assert not same(state_of(alone.network), state_of(fit(id, source).network))


def test_methods_that_need_a_source_cannot_do_without() -> None:
    for id in registry.entries("methods"):
        if methods.build(id, {}).needs_source:
            with pytest.raises(InputError, match="from a source"):
                methods.build(id, {"from_scratch": "true"})


@pytest.mark.parametrize("disc", ["conv", "pool", "linear"])
def test_igams_discriminators(disc: str, source: Network) -> None:
    more = {"disc": disc, "disc_adam": disc == "pool", "teacher_trains": "all" if disc == "linear" else "head"}
    done = fit("igam", source, {**settings("igam"), **more})
    assert set(done.log[-1]) == {"step", "phase", "lr", "ce", "discriminator", "gradients"}
    from transferbench.methods.igam import Discriminator

    judge = Discriminator((1, 8, 8), 2, 6, disc)
    gradient = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    judge.eval()
    flat = gradient.flatten(1) - gradient.flatten(1).mean(1, keepdim=True)
    x = flat / flat.norm(dim=1, keepdim=True)
    if disc == "linear":
        for layer, norm in zip(judge.layers, judge.norms, strict=True):
            x = F.leaky_relu(norm(layer(x)), 0.1)
        assert [layer.out_features for layer in judge.layers] == [6, 6, 3]
    else:
        x = x.view_as(gradient)
        for layer, norm in zip(judge.layers, judge.norms, strict=True):
            x = F.leaky_relu(norm(layer(F.pad(x, (1, 1, 1, 1)))), 0.1)
        x = x.mean((2, 3)) if disc == "pool" else x.flatten(1)
    assert torch.allclose(judge(gradient), judge.head(x), atol=1e-5)


def test_igams_teacher_of_another_resolution(small_victim: Any) -> None:
    """The up-resize variant: the teacher's gradient is taken w.r.t. the image's own pixels, the student sees them."""
    from transferbench.models.victim import fitted

    resized = fitted(small_victim, (1, 4, 4))
    method = methods.build("igam", settings("igam"))
    assert method.network(resized.card.network, "") == "small-resnet"
    assert method.network(resized.card.network, "other") == "other"
    student = method.student(
        Network(resized.model, resized.layers), lambda: Network(*networks.build("small-resnet", 10)[:2]), 10
    )
    x = torch.rand(3, 1, 4, 4, requires_grad=True)
    from transferbench.methods.igam import input_gradient

    gradient = input_gradient(method.teacher.model(x), x, torch.tensor([0, 1, 2]), create_graph=False)
    assert gradient.shape == (3, 1, 4, 4)
    by_hand = torch.autograd.functional.jacobian(lambda image: method.teacher.model(image).softmax(1), x)
    for row, label in enumerate((0, 1, 2)):
        assert torch.allclose(gradient[row], by_hand[row, label, row] / 255, atol=1e-7)
    assert student.model(x).shape == (3, 10)


@pytest.mark.parametrize("id", METHODS)
def test_saved_and_loaded_weights_give_the_same_logits(id: str, small_victim: Any, tmp_path: Path) -> None:
    splits = data.load("digits", "train"), data.load("digits", "val")
    recipe = Recipe("v", id, "digits", "")
    model, card, _ = train_victim(recipe, methods.build(id, settings(id)), small_victim, splits)
    trained.save(tmp_path / "v", model.state_dict(), card)
    x = splits[1].images[:16]
    assert torch.equal(victims.load(str(tmp_path / "v")).model(x), model(x))

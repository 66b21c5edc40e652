"""IGAM's teacher in a step of its own: before the student, with its own noise, on each batch's statistics, or given."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.nets import Small
from support.trainings import LAYERS, StoppedError, StopsAfter, same, settings, state_of

from transferbench import data, methods
from transferbench.base.errors import InputError
from transferbench.methods import Network, batch_norms
from transferbench.models import networks
from transferbench.training import loop
from transferbench.training.batches import Loader


@pytest.fixture
def source(small: Small) -> Network:
    return Network(small.model, LAYERS)


def fresh() -> Network:
    return Network(*networks.build("small-resnet", 10)[:2])


def fit(source: Network, given: dict[str, Any], options: loop.FitOptions = loop.FIT_OPTIONS) -> tuple[Any, Any]:
    method = methods.build("igam", {**settings("igam"), **given})
    splits = data.load("digits", "train"), data.load("digits", "val")
    return method, loop.fit(method, source, fresh, *splits, options)


def prepared(source: Network, given: dict[str, Any]) -> tuple[Any, Loader]:
    """The method after the teacher's own step, and the batches that it had."""
    method: Any = methods.build("igam", {**settings("igam"), "teacher_first": True, **given})
    loader = Loader(data.load("digits", "train"), method.params)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = method.student(source, fresh, 10)
        method.prepare(student, source, loader.epoch)
    return method, loader


def test_the_teachers_own_step_by_hand(source: Network) -> None:
    """Adam at .001 on a linear head over frozen features, on batches of 64 put together from those of 32."""
    method, loader = prepared(source, {"teacher_steps": 3, "teacher_batch_size": 64})
    assert method.teacher_done == 3
    start: Any = methods.build("igam", {**settings("igam"), "teacher_steps": 3})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start.student(source, fresh, 10)
    model = start.teacher.model
    optimiser = torch.optim.Adam(model.head.parameters(), 1e-3)
    batches = list(loader.epoch())
    for number in range(3):
        pair = batches[2 * number : 2 * number + 2]
        loss = F.cross_entropy(model(torch.cat([b.x for b in pair])), torch.cat([b.y for b in pair]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert torch.allclose(model.head.weight, method.teacher.model.head.weight, atol=1e-6)


def test_it_sees_new_epochs_and_the_student_starts_with_a_finished_teacher(source: Network) -> None:
    per_epoch = Loader(data.load("digits", "train"), methods.build("igam", settings("igam")).params).per_epoch
    seen: list[int] = []
    method: Any = methods.build(
        "igam", {**settings("igam"), "teacher_first": True, "teacher_steps": per_epoch + 2, "teacher_batch_size": 32}
    )
    student = method.student(source, fresh, 10)
    loader = Loader(data.load("digits", "train"), method.params)

    def batches(number: int = 0, /) -> Any:
        seen.append(number)
        return loader.epoch(number)

    method.prepare(student, source, batches)
    assert seen == [0, 1]
    assert method.teacher_done == per_epoch + 2
    before = copy.deepcopy(method.teacher.model.state_dict())
    method.loss(student, source, next(loader.epoch()))
    assert same(before, method.teacher.model.state_dict()), "it is not trained on"


@pytest.mark.parametrize("match_share", [0.5, 1.0])
def test_its_place_matters_where_matching_begins_before_it_is_done(match_share: float, source: Network) -> None:
    given = {"teacher_steps": 3, "match_share": match_share}
    during, first = (state_of(fit(source, {**given, "teacher_first": own})[1].network) for own in (False, True))
    assert same(during, first) == (match_share == 0.5), "the same images until then"


def test_its_noise_is_its_own(source: Network) -> None:
    plain = prepared(source, {})[0].teacher.model.state_dict()
    assert same(plain, prepared(source, {"input_noise": "0"})[0].teacher.model.state_dict()), "not the student's"
    noisy, loader = prepared(source, {"teacher_noise": "8/255"})
    assert not same(plain, noisy.teacher.model.state_dict())
    seen: list[torch.Tensor] = []
    noisy._step_teacher = lambda x, y: seen.append(x)
    noisy.teacher_done, noisy.pending = 0, None
    batch = next(loader.epoch())
    given = {**settings("igam"), "teacher_noise": "8/255", "teacher_batch_size": 32}
    noisy.params = methods.build("igam", given).params
    noisy._train_teacher(batch)
    change = seen[0] - batch.x
    inside = (batch.x > 8 / 255) & (batch.x < 1 - 8 / 255)
    assert float(change.abs().max()) <= 8 / 255 + 1e-6
    assert float(change[inside].abs().mean()) == pytest.approx(4 / 255, rel=0.1)
    assert not torch.equal(noisy._noisy(batch), seen[0]), "another draw than the student's"


def test_on_each_batchs_statistics(source: Network) -> None:
    method, loader = prepared(source, {"teacher_bn": "batch"})
    assert all(norm.training for norm in batch_norms(method.teacher.model).values())
    batch = next(loader.epoch())
    whole = method.teacher.model(batch.x)
    assert not torch.allclose(whole[:8], method.teacher.model(batch.x[:8]), atol=1e-3)
    running = prepared(source, {})[0]
    assert not any(norm.training for norm in batch_norms(running.teacher.model).values())


@pytest.mark.parametrize("more", [{"teacher_first": True}, {"teacher_bn": "batch"}, {"teacher_noise": "0.1"}])
def test_a_killed_training_gives_the_same_weights(more: dict[str, Any], source: Network, tmp_path: Path) -> None:
    unbroken, broken = fit(source, more)[1], None
    while broken is None:
        try:
            broken = fit(source, more, loop.FitOptions(checkpoint=StopsAfter(tmp_path / "c", 2)))[1]
        except StoppedError:
            continue
    assert same(state_of(unbroken.network), state_of(broken.network))


def test_a_source_that_is_a_teacher_already(source: Network) -> None:
    method: Any = methods.build("igam", {**settings("igam"), "teacher_steps": 0})
    with pytest.raises(InputError, match="the source is no teacher"):
        method.student(source, fresh, 10)
    method.keeps_head = True
    student = method.student(source, fresh, 10)
    batch = next(Loader(data.load("digits", "train"), method.params).epoch())
    method.loss(student, source, batch._replace(step=7))
    assert same(method.teacher.model.state_dict(), source.model.state_dict())


@pytest.mark.parametrize("given", [{"teacher_noise": "x"}, {"teacher_noise": "-1/255"}, {"teacher_bn": "eval"}])
def test_bad_values_are_refused_before_anything_runs(given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        methods.build("igam", given)


def test_lwfs_head_phase_has_its_own_length() -> None:
    for given, expected in (({}, [50, 50]), ({"warm_steps": 30}, [30, 70])):
        assert [phase.steps for phase in methods.build("lwf", {"steps": 100, **given}).phases()] == expected
    with pytest.raises(InputError, match="part of all 20000 steps"):
        methods.build("lwf", {"warm_steps": 20_001})

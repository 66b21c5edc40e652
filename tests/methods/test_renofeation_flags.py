"""The flags of Renofeation's train.py: its losses with some stages and L2-SP together, and when its average begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.formula_weights import numbers, picture
from support.nets import Small
from support.trainings import LAYERS, SHORT, StoppedError, StopsAfter, same, settings, state_of
from torch import nn

from transferbench import data, methods
from transferbench.base.errors import InputError
from transferbench.methods import Batch, Network
from transferbench.models import networks
from transferbench.smoke.shorten import _settings as shortened
from transferbench.training import loop

# What train.py of Renofeation adds up with label_smoothing .1, beta .01, feat_lmda 3, l2sp_lmda .2 and these
# feat_layers, from its own resnet18_dropout and mbnetv2_dropout in eval mode: the teacher, and the weights that L2-SP
# pulls to, are `numbers(...)`, the student's `numbers(..., .05)`; two pictures of the classes 4 and 1.
TERMS = {
    ("torchvision:resnet18", "34"): {"ce": 28.576395, "head": 0.02544577, "features": 1.2929966, "start": 2.5581033},
    ("torchvision:mobilenet_v2", "125"): {
        "ce": 1.2725892, "head": 0.02549074, "features": 0.5722518, "start": 9.0829411,
    },
}  # fmt: skip


@pytest.fixture
def source(small: Small) -> Network:
    return Network(small.model, LAYERS)


def fit(id: str, source: Network, given: dict[str, Any], options: loop.FitOptions = loop.FIT_OPTIONS) -> loop.Trained:
    splits = data.load("digits", "train"), data.load("digits", "val")
    fresh = lambda: Network(*networks.build("small-resnet", 10)[:2])  # noqa: E731
    return loop.fit(methods.build(id, given), source, fresh, *splits, options)


@pytest.mark.parametrize(("network", "layers"), TERMS)
def test_the_terms_are_those_of_its_code(network: str, layers: str) -> None:
    built = networks.build(network, 5)
    inner = built.model.get_submodule("model")
    inner.load_state_dict(numbers(inner.state_dict()))
    source = Network(built.model.eval(), built.layers)
    given = {"feat_layers": layers, "feat_lmda": 3, "l2sp_lmda": 0.2, "weight_decay": 0, "label_smoothing": 0.1}
    method: Any = methods.build("delta", given)
    method.keeps_head = True
    student = method.student(source, None, 5)
    inner = student.model.get_submodule("model")
    inner.load_state_dict(numbers(inner.state_dict(), 0.05))
    student.model.eval()
    images = torch.cat([picture(), picture(shift=1.0)])
    with torch.no_grad():
        terms = method.loss(student, source, Batch(images, torch.tensor([4, 1]), torch.zeros(2).long(), 0))
    expected = TERMS[network, layers]
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=2e-4), name


@pytest.mark.parametrize("id", ["delta", "delta-r", "renofeation"])
def test_a_subset_of_stages_trains_other_weights(id: str, source: Network) -> None:
    whole = fit(id, source, {**settings(id), "feat_lmda": 5, "dropout": 0})
    assert same(state_of(whole.network), state_of(fit(id, source, {**settings(id), "feat_lmda": 5, "dropout": 0,
                                                                   "feat_layers": "1234"}).network))  # fmt: skip
    less = fit(id, source, {**settings(id), "feat_lmda": 5, "dropout": 0, "feat_layers": "34"})
    assert not same(state_of(whole.network), state_of(less.network))
    with pytest.raises(InputError, match="the source network has 4 stages"):
        fit(id, source, {**settings(id), "feat_layers": "12345"})


def test_attention_weighs_the_matched_stages_alone(source: Network) -> None:
    given = {**SHORT, "steps": 1, "attention": True, "attention_steps": 1, "attention_batches": 1, "feat_layers": "24"}
    method: Any = methods.build("delta", given)
    digits = data.load("digits", "train")
    loop.fit(method, source, lambda: source, digits, None)
    widths = [module.out_channels for module in source.model.modules() if isinstance(module, nn.Conv2d)]
    assert len(method.channels) == 2
    assert all(len(weights) in widths for weights in method.channels)


def test_l2sp_in_delta_r_pulls_to_the_source_not_to_the_new_start(source: Network) -> None:
    method: Any = methods.build("delta-r", {**SHORT, "weight_decay": 0, "l2sp_lmda": 1e-3})
    student = method.student(source, None, 10)
    name = next(name for name, _ in student.model.named_parameters())
    assert torch.equal(method.start[name], source.model.get_parameter(name))
    assert not torch.equal(student.model.get_parameter(name), source.model.get_parameter(name))


@pytest.mark.parametrize("id", ["delta", "renofeation"])
def test_a_training_with_l2sp_and_dropout_survives_being_killed(id: str, source: Network, tmp_path: Any) -> None:
    given = {**settings(id), "weight_decay": 0, "l2sp_lmda": 0.01, "dropout": 0.3, "feat_layers": "13"}
    unbroken, broken = fit(id, source, given), None
    while broken is None:
        try:
            broken = fit(id, source, given, loop.FitOptions(checkpoint=StopsAfter(tmp_path / "c", 3)))
        except StoppedError:
            continue
    assert same(state_of(unbroken.network), state_of(broken.network))


class Counting(methods.BaseMethod[Any]):
    """Every step adds the learning rate to the head's bias."""

    def __init__(self, phase: methods.Phase) -> None:
        super().__init__(methods.build("finetune", {**SHORT, "momentum": 0, "weight_decay": 0}).params)
        self.phase = phase

    def phases(self) -> list[methods.Phase]:
        return [self.phase]

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, torch.Tensor]:
        return {"count": -student.model.get_parameter("head.bias").sum()}


def test_snapshots_are_those_of_torchcontribs_swa(source: Network) -> None:
    """With swa_start=3 and swa_freq=2, 11 steps of +1 average to 7 in torchcontrib 0.0.2: 4, 6, 8 and 10."""
    given = {**SHORT, "steps": 13, "swa_steps": 11, "swa_freq": 2, "swa_start": 3, "swa_lr": 1}
    phases = [methods.build("renofeation", given).phases()[1], methods.Phase("one", 1, 1.0, "constant")]
    digits = data.load("digits", "train")
    ends = [loop.fit(Counting(phase), source, lambda: source, digits, None) for phase in phases]
    average, one = (end.network.model.get_parameter("head.bias") for end in ends)
    assert torch.allclose(average - one, torch.full_like(one, 6.0), atol=1e-5)


@pytest.mark.parametrize(
    ("given", "phases"),
    [
        ({}, [(90_000, 0, 0), (30_000, 500, 0)]),
        (
            {"steps": 50_000, "swa_steps": 20_000, "swa_freq": 250, "swa_start": 1000},
            [(30_000, 0, 0), (20_000, 250, 1000)],
        ),
        ({"steps": 8, "swa_snapshots": 2}, [(6, 0, 0), (2, 1, 0)]),
    ],
)  # fmt: skip
def test_the_second_phase_has_its_own_settings(given: dict[str, Any], phases: list[tuple[int, int, int]]) -> None:
    found = methods.build("renofeation", given).phases()
    assert [(phase.steps, phase.average_every, phase.average_after) for phase in found] == phases


@pytest.mark.parametrize(
    ("id", "given", "complaint"),
    [
        ("delta", {"feat_layers": "0"}, "feat_layers"),
        ("delta", {"feat_layers": "11"}, "each stage once"),
        ("delta", {"l2sp_lmda": 0.1}, "set weight_decay=0"),
        ("renofeation", {"swa_steps": 120_000}, "part of all 120000 steps"),
        ("renofeation", {"swa_freq": 100, "swa_snapshots": 5}, "one of the two"),
        ("renofeation", {"swa_freq": 40_000}, "no snapshot"),
        ("renofeation", {"swa_start": 30_000}, "no snapshot"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_runs(
    id: str, given: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        methods.build(id, given)


def test_a_smoke_run_leaves_out_what_counts_steps() -> None:
    given = shortened("renofeation", {"swa_steps": 30_000, "swa_freq": 500, "swa_start": 0, "feat_layers": "34"})
    assert methods.build("renofeation", given).params.feat_layers == "34"

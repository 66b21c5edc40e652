from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.nets import Linear, Small
from torch import nn

import transferbench
from transferbench import attacks
from transferbench.attacks import Keys, lockstep, source_attack
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.engine.source_model import SourceModel
from transferbench.jobs.attack import AttackJob
from transferbench.models.features import find_layers
from transferbench.python import chain_progress
from transferbench.scheduling import plan

THREATS = {"Linf": "0.06", "L2": 0.25, "L1": "0.9"}


@pytest.fixture(scope="module")
def report(small: Small) -> transferbench.Report:
    return transferbench.evaluate(small.model, small.x, small.y, THREATS, n_iter=20, seed=0)


def test_rates_verdicts_and_points_tell_one_story(small: Small, report: transferbench.Report) -> None:
    n = len(small.x)
    assert list(report.robust) == ["Linf", "L2", "L1"]
    assert len(report.verdicts) == 3 * n
    wide = report.verdicts.pivot_table(index="example", columns="threat", values="fooled", aggfunc="first")
    for threat, rate in report.robust.items():
        assert rate == pytest.approx(1 - wide[threat].mean())
        with torch.no_grad():
            wrong = small.model(report.x_adv[threat]).argmax(1) != small.y
        assert wrong.tolist() == wide[threat].tolist(), "the points are wrong exactly where the flags say so"
    assert report.union == pytest.approx((~wide.astype(bool)).all(axis=1).mean())
    assert report.union <= min(report.robust.values()) <= max(report.robust.values()) <= report.clean
    survivors = report.verdicts[~report.verdicts.fooled]
    assert (survivors.attack == "").all()
    assert (survivors.distance == 0).all()
    assert (report.verdicts[report.verdicts.attack == "clean"].distance == 0).all()


def test_costs_add_up(report: transferbench.Report) -> None:
    frame = report.cost.by_attack
    assert frame is not None
    assert report.cost.forwards == frame.forwards.sum() == report.cost.backwards
    assert isinstance(report.cost.wasted, int)
    assert report.cost.checks > 0


SEEN = {"forwards": 0, "backwards": 0}


class Counting(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        SEEN["forwards"] += len(x)
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        SEEN["backwards"] += len(gradient)
        return gradient


class Witness(nn.Module):
    """Counts by itself; what cannot be traced is copied plain, and the copies count into the same place."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(Counting.apply(x) if len(x) else x)


def test_every_row_is_counted(small: Small) -> None:
    """16 examples fill the smallest batch of the judge, and nothing falls at this radius. Where that batch is 4 on this
    processor the end points go in batches of 5, the last of them padded by 3."""
    right = small.correct()
    x, y = right.x[:16], right.y[:16]
    SEEN.update(forwards=0, backwards=0)
    report = transferbench.evaluate(Witness(small.model).eval(), x, y, {"Linf": "1e-6"}, ["apgd-ce"], n_iter=5)
    assert report.robust == {"Linf": 1}
    assert report.cost.forwards == report.cost.backwards == 16 * 6
    assert sum(SEEN.values()) == report.cost.forwards + report.cost.backwards + report.cost.checks
    # Pre-flight: 7 forwards, 2 backwards; rows compared in other batches, one of them of all slots.
    looked_at, compared = 9 * 16, 16 + 16 + 16 + (4 + 7 + 10 + 13) + 4 + 256 + 1
    # Copies compared; the judge's floor: 16 + 4 + 5; clean and best points; flags: gradients, end points twice, and the
    # clean images once more.
    copied, floor, judged, flagged = 4 * 16, 25, 2 * 16, 2 * 16 + 2 * 16 + 16
    assert report.cost.checks - (looked_at + compared + copied + floor + judged + flagged) in (0, 3)


def test_verdicts_do_not_depend_on_order_or_batch(small: Small, report: transferbench.Report) -> None:
    order = torch.randperm(len(small.x), generator=torch.Generator().manual_seed(0))
    other = transferbench.evaluate(
        small.model, small.x[order], small.y[order], {"L2": 0.25}, n_iter=20, seed=0, ids=order, batch_size=5
    )
    mine = report.verdicts[report.verdicts.threat == "L2"].set_index("example").loc[order.tolist()]
    assert mine.fooled.tolist() == other.verdicts.fooled.tolist()
    assert mine["try"].tolist() == other.verdicts["try"].tolist()
    assert torch.equal(report.x_adv["L2"][order], other.x_adv["L2"])


def test_a_list_of_threats_makes_a_curve(small: Small) -> None:
    got = transferbench.evaluate(
        small.model, small.x, small.y, [("Linf", "0.02"), ("Linf", "0.06"), ("L2", "0.25")], n_iter=10
    )
    assert list(got.robust) == ["Linf:0.02", "Linf:0.06", "L2:0.25"]
    assert got.robust["Linf:0.02"] >= got.robust["Linf:0.06"]
    assert got.union is None


@pytest.mark.parametrize("classes", [2, 3, 4, 9, 10, 11])
def test_any_number_of_classes_finishes(classes: int) -> None:
    torch.manual_seed(0)
    model = Linear(torch.randn(classes, 16), torch.zeros(classes))
    x = torch.rand(8, 16)
    got = transferbench.evaluate(model, x, model(x).argmax(1), THREATS, n_iter=5)
    assert got.clean == 1


def test_the_callers_world_is_the_same_afterwards(small: Small) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    x, y = small.x.clone(), small.y.clone()
    modes = [module.training for module in small.model.modules()]
    for backend, n_iter in (("transferbench", 5), ("autoattack", 100)):
        transferbench.evaluate(small.model, x[:8], y[:8], {"Linf": "0.06"}, n_iter=n_iter, backend=backend)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    assert torch.equal(x, small.x)
    assert torch.equal(y, small.y)
    assert modes == [module.training for module in small.model.modules()]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in small.model.parameters())


@pytest.mark.parametrize(
    ("threats", "complaint"),
    [
        ({"Linf": 8}, "over 1"),
        ({"L3": 1}, "unknown threat 'L3'"),
        ({"L2": 0}, "not above 0"),
        ({}, "at least one"),
        ([("L2", 1), ("L2", 1)], "given twice"),
    ],
)
def test_bad_threats_are_refused(small: Small, threats: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        transferbench.evaluate(small.model, small.x, small.y, threats)  # type: ignore[arg-type]


def test_a_source_is_attacked_alone_and_shown_beside_its_noise(small: Small) -> None:
    torch.manual_seed(1)
    # A source of another label space: the victim's trunk with 3 classes.
    source = copy.deepcopy(small.model)
    head = find_layers(source).head
    width = source.get_submodule(head).in_features
    source.set_submodule(head, torch.nn.Linear(width, 3))
    got = transferbench.evaluate(
        small.model, small.x, small.y, {"Linf": "0.1", "L2": 0.25}, n_iter=5, source=source.eval()
    )
    table = got.source_only
    assert table is not None
    assert table.attack.tolist() == ["pretrained-neuron", "source-pgd", "random-sign"] + ["shuffled", "other-image"] * 2
    assert table.of.tolist() == ["", "", "", *["pretrained-neuron"] * 2, *["source-pgd"] * 2]
    assert table.tries.tolist() == [8, 1, 9, 8, 8, 1, 1]
    assert set(table.threat) == {"Linf"}
    assert (table.correct == round(got.clean * len(small.x))).all()
    assert (table.n == len(small.x)).all()
    # The attack by hand: any of 8 driven neurons of the source flips a correct example.
    network = SourceModel(source, find_layers(source))
    spec, threat = AttackSpec.of("pretrained-neuron"), ThreatModel.parse("Linf", "0.1")
    attack, right = attacks.build(spec, threat, 10), small.model(small.x).argmax(1) == small.y
    fallen = torch.zeros_like(right)
    for attempt in range(8):
        noise = lockstep.try_keys(0, "Linf", "0.1", attempt, torch.arange(len(small.x)))
        state = attack.start(small.x, network, Keys(noise, torch.full_like(noise, attempt)))
        points = source_attack.run_to_end(attack, network, state)
        fallen |= right & (small.model(points).argmax(1) != small.y)
    assert table.flipped.tolist()[0] == int(fallen.sum())


def test_a_source_needs_a_linf_threat_and_a_linear_layer(small: Small) -> None:
    with pytest.raises(InputError, match="Linf"):
        transferbench.evaluate(small.model, small.x, small.y, {"L2": 0.25}, source=small.model)
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Softplus()).eval()
    with pytest.raises(InputError, match="no penultimate"):
        transferbench.evaluate(small.model, small.x, small.y, {"Linf": "0.1"}, n_iter=2, source=flat)


def test_a_store_makes_an_evaluation_resumable(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SHARD", 16)
    ran: list[str] = []
    attack = AttackJob.run
    monkeypatch.setattr(AttackJob, "run", lambda job, *a, **k: ran.append(job.label) or attack(job, *a, **k))

    def go(model: torch.nn.Module, n: int, **more: object) -> transferbench.Report:
        threats = {"Linf": "0.06", "L1": "0.9"}
        return transferbench.evaluate(model, small.x[:n], small.y[:n], threats, n_iter=5, store=tmp_path / "s", **more)

    plain = transferbench.evaluate(small.model, small.x[:40], small.y[:40], {"Linf": "0.06", "L1": "0.9"}, n_iter=5)
    first = go(small.model, 32)
    assert len(ran) == 4, "two shards of 16, two threats"
    whole = go(small.model, 40)
    assert len(ran) == 6, "the 32 that are done are not run again"
    again = go(small.model, 40)
    assert len(ran) == 6
    for got in (whole, again):
        pd.testing.assert_frame_equal(got.verdicts, plain.verdicts)
        assert all(torch.equal(got.x_adv[name], plain.x_adv[name]) for name in plain.x_adv)
        assert got.cost.backwards == plain.cost.backwards
    pd.testing.assert_frame_equal(
        first.verdicts[first.verdicts.threat == "L1"].reset_index(drop=True),
        plain.verdicts[(plain.verdicts.threat == "L1") & (plain.verdicts.example < 32)].reset_index(drop=True),
    )
    # Another seed, other weights, the same weights behind another normalisation: nothing is reused.
    other = copy.deepcopy(small.model)
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    darker = torch.nn.Sequential(Darker(), small.model).eval()
    for model, more in ((small.model, {"seed": 1}), (other, {}), (darker, {})):
        before = len(ran)
        go(model, 16, **more)
        assert len(ran) == before + 2


class Darker(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0.9


def test_what_cannot_be_stored_is_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="replay"):
        transferbench.evaluate(small.model, small.x, small.y, {"L2": 1}, replay=True, store=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_model_that_draws_noise_is_stored_with_its_batch_and_attacked_again(small: Small, tmp_path: Path) -> None:
    noisy = torch.nn.Sequential(Noisy(), small.model).eval()
    for run in (1, 2):
        torch.manual_seed(run)
        net = small.first(32)
        report = transferbench.evaluate(
            noisy, net.x, net.y, {"L2": 1}, "apgd-ce", n_iter=2, batch_size=32, store=tmp_path
        )
        assert report.batch == 32
        assert "randomised" in report.flags
        assert len(list((tmp_path / "examples").glob("*"))) == run, "its answers name it, and they differ"


class Noisy(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.1 * torch.randn_like(x)


def test_a_long_evaluation_shows_where_it_is(
    small: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(chain_progress, "EVERY", 0.0)
    arguments = (small.model, small.x, small.y, {"Linf": "0.06"}, ("pgd",), 2)
    transferbench.evaluate(*arguments, progress=False)
    assert capsys.readouterr().err == ""
    transferbench.evaluate(*arguments)
    lines = capsys.readouterr().err.splitlines()
    assert "of 60 not fooled (nothing is kept if it is stopped: store=FOLDER makes it resumable)" in lines[0]
    assert not any("nothing is kept" in line for line in lines[1:]), "said once"
    transferbench.evaluate(*arguments, store=tmp_path)
    assert "nothing is kept" not in capsys.readouterr().err


def test_the_costs_have_columns_where_nothing_was_right(small: Small) -> None:
    wrong = (small.logits.argmax(1) + 1) % 10
    report = transferbench.evaluate(small.model, small.x, wrong, {"Linf": "0.06"}, ("pgd",), 2)
    assert report.cost.by_attack is not None
    assert list(report.cost.by_attack.columns[:3]) == ["threat", "attack", "tries"]

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from conftest import Linear, Small

import transferbench
from transferbench.types import InputError

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
        ({"L3": 1}, "unknown norm"),
        ({"L2": 0}, "not above 0"),
        ({}, "at least one"),
        ([("L2", 1), ("L2", 1)], "given twice"),
    ],
)
def test_bad_threats_are_refused(small: Small, threats: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        transferbench.evaluate(small.model, small.x, small.y, threats)  # type: ignore[arg-type]

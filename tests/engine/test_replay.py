"""Replay agrees with the reference example by example; own starts agree as far as another seed would."""

from __future__ import annotations

import pytest
from support.nets import Small, train_small

import transferbench
from transferbench.base.errors import InputError

THREATS = {"Linf": "0.12", "L2": "0.5", "L1": "2"}
SEED = 7


NETS = [pytest.param(10, 80, 0.1, 52, marks=pytest.mark.slow), (5, 60, 0.2, 7)]


@pytest.mark.parametrize(("classes", "steps", "noise", "n"), NETS)
def test_replay_is_the_reference_and_own_starts_are_no_weaker(classes: int, steps: int, noise: float, n: int) -> None:
    """Several batches, the last one short, so that batches, barriers and survivors, on which the reference's starts
    depend, all matter. The reference takes as long for a batch of 2 as for one of 20: the small case has two of them,
    in L1, whose starts draw the most."""
    net, rows = train_small(classes, steps, n, noise), n * (2 if classes == 10 else 3) // 5
    threats = THREATS if classes == 10 else {"L1": THREATS["L1"]}
    reference = transferbench.evaluate(
        net.model, net.x, net.y, threats, seed=SEED, batch_size=rows, backend="autoattack"
    )
    theirs = reference.verdicts
    assert len(theirs) == len(threats) * n
    assert 0.2 < theirs.fooled.mean() < 0.9, "examples that all fall or all stand show nothing"

    replay = transferbench.evaluate(net.model, net.x, net.y, threats, seed=SEED, batch_size=rows, replay=True)
    assert replay.verdicts.fooled.tolist() == theirs.fooled.tolist()
    assert replay.verdicts.attack.tolist() == theirs.attack.tolist()
    assert replay.cost.backwards == reference.cost.backwards

    if classes < 10:
        # One net's own starts are enough here: test_full_scale.py compares 2100 verdicts.
        return
    own = transferbench.evaluate(net.model, net.x, net.y, THREATS, seed=SEED)
    differ = int((own.verdicts.fooled != theirs.fooled).sum())
    assert differ <= 3, f"{differ} of {len(theirs)} verdicts differ: more than another seed explains"
    assert own.cost.backwards + own.cost.wasted < reference.cost.backwards


def test_the_screen_only_adds_breaks_and_is_counted_apart(small: Small) -> None:
    def both(eps: str) -> tuple[transferbench.Report, transferbench.Report]:
        reports = [
            transferbench.evaluate(small.model, small.x, small.y, {"L1": eps}, seed=SEED, n_iter=30, screen=screen)
            for screen in (True, False)
        ]
        return reports[0], reports[1]

    screened, plain = both("0.9")
    frame = screened.cost.by_attack
    assert frame is not None
    assert frame.attack.tolist() == ["l1-screen", "apgd-ce", "apgd-t"]
    assert frame.broke[0] > 0
    assert "l1-screen" not in set(plain.verdicts.attack)
    assert screened.robust["L1"] <= plain.robust["L1"] + 1 / len(small.x)
    # Where everything falls, 18 of the 33 passes of a try can hit nothing without the screen.
    screened, plain = both("12")
    assert screened.robust == plain.robust == {"L1": 0}
    assert screened.cost.backwards + screened.cost.wasted < plain.cost.backwards / 3


@pytest.mark.slow
def test_the_whole_standard_version_runs_with_fewer_than_ten_classes() -> None:
    """FAB-T with 9 targets and APGD-T stop with an IndexError there: the counts are capped by the classes."""
    net = train_small(4, 40, 4, 0.2)
    report = transferbench.evaluate(net.model, net.x, net.y, {"L2": "0.4"}, ("standard",), backend="autoattack")
    frame = report.cost.by_attack
    assert frame is not None
    assert frame.attack.tolist() == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert frame.tries.tolist() == [1, 3, 3, 1]
    assert report.robust["L2"] <= report.clean


def test_the_reference_needs_four_classes() -> None:
    three = train_small(3, 20, 4, 0.2)
    with pytest.raises(InputError, match="needs 4 classes"):
        transferbench.evaluate(three.model, three.x, three.y, {"L2": "0.4"}, backend="autoattack")


def test_replay_and_the_reference_exclude_each_other(small: Small) -> None:
    with pytest.raises(InputError, match="without backend"):
        transferbench.evaluate(small.model, small.x, small.y, THREATS, replay=True, backend="autoattack")
    with pytest.raises(InputError, match="no attack 'pgd'"):
        transferbench.evaluate(small.model, small.x, small.y, {"Linf": "0.1"}, attacks=["pgd"], replay=True)

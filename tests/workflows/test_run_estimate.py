"""`run --dry-run` says how long a run will take: passes by count, with the time of a pass replaced by a second."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny_suite import TINY, tiny

from transferbench.base.settings import RunSettings
from transferbench.cli.main import main
from transferbench.jobs.attack import AttackJob
from transferbench.scheduling.plan import Plan, plan
from transferbench.workflows import run_estimate

ATTACKED = '    - {name: madry, method: madry, source: natural, set: {steps: 10, batch_size: 8, k: 3, eps: "0.1"}}\n'


def attack_passes(made: Plan) -> float:
    """The most passes of the plan's chains."""
    return sum(job.passes for job in made.jobs if isinstance(job, AttackJob))


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_estimate, "_attack_pass", lambda network: 1.0)
    monkeypatch.setattr(run_estimate, "_training_pass", lambda network, rows: 1.0)


@pytest.mark.usefixtures("seconds")
def test_passes_are_counted_by_kind_and_what_training_attacks_stands_longer(tmp_path: Path) -> None:
    made = plan(tiny(tmp_path, TINY), (0,))
    natural = run_estimate._by_kind(made, None)
    assert natural["train"] == 1.5 * (30 * 128 + 2 * 20 * 64)
    assert natural["attack"] == pytest.approx(0.05 * attack_passes(made))
    assert natural["clean"] == pytest.approx(2 * 1397 / 3)
    more = plan(tiny(tmp_path, TINY + ATTACKED), (0,))
    both = run_estimate._by_kind(more, None)
    assert both["train"] - natural["train"] == 10 * 8 * (3 + 1.5)
    assert both["attack"] - natural["attack"] == pytest.approx(0.5 * (attack_passes(more) - attack_passes(made)))
    twice = run_estimate._by_kind(plan(tiny(tmp_path, TINY), (0, 1)), None)
    assert twice == {kind: pytest.approx(2 * spent) for kind, spent in natural.items()}


@pytest.mark.usefixtures("seconds")
def test_it_is_one_line_with_what_it_assumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    tiny(tmp_path, TINY)
    assert main(["run", str(tmp_path / "tiny.yaml"), "--dry-run", "--workers", "2"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("time: about 3.1 h of one core, in 2 processes about ")
    assert "(train 2.7 h, clean 16 min, " in line
    assert line.endswith("stand 50% of the examples where training attacks, 5% elsewhere")
    assert torch.get_num_threads() == threads
    made = plan(tiny(tmp_path, TINY), (0,))
    assert run_estimate.text(made, RunSettings(cluster="tcp://127.0.0.1:1")) == "", "other machines' time is not known"


def test_a_pass_is_timed_on_the_networks_own_input() -> None:
    assert 0 < run_estimate._attack_pass("small-resnet") < 1
    assert 0 < run_estimate._training_pass("small-resnet", 8) < 1

"""evaluate(workers=): a script's own network in worker processes, without a guard around the script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.nets import Small

import transferbench
from transferbench.base.errors import InputError
from transferbench.engine import threads
from transferbench.scheduling import scheduler

SCRIPT = """
import torch
from torch import nn
import transferbench
from transferbench.scheduling import scheduler

print("imported")
scheduler._SMALL = -1.0

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(12, 4)
    def forward(self, x):
        return self.layer(x.flatten(1)) - 0.1

model, x = Own().eval(), torch.rand(60, 3, 2, 2, generator=torch.Generator().manual_seed(0))
y = model(x).argmax(1)
given = dict(threats={"Linf": 0.03, "L2": 0.06}, n_iter=6, progress=False)
alone, together = transferbench.evaluate(model, x, y, **given), transferbench.evaluate(model, x, y, workers=2, **given)
assert 0 < alone.union < 1
assert together.verdicts.equals(alone.verdicts)
assert all(torch.equal(together.x_adv[name], alone.x_adv[name]) for name in alone.x_adv)
assert together.cost.forwards == alone.cost.forwards
print("equal")
"""


@pytest.mark.slow
def test_a_script_without_a_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["imported", "equal"], "the script itself has run once"


def test_workers_and_precision_are_checked(small: Small) -> None:
    def refused(**given: object) -> str:
        with pytest.raises(InputError) as caught:
            transferbench.evaluate(small.model, small.x, small.y, {"Linf": 0.1}, **given)  # type: ignore[arg-type]
        return str(caught.value)

    assert "workers=0" in refused(workers=0)
    assert "cannot be divided" in refused(workers=2, replay=True)
    assert "precision='fp16': write fp32 or bf16" in refused(precision="fp16")
    assert "is of our search" in refused(precision="bf16", backend="autoattack")


def test_little_work_stays_here(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("no process is needed")

    monkeypatch.setattr(scheduler, "ProcessBackend", never)
    given = {"threats": {"Linf": 0.06}, "n_iter": 3, "progress": False}
    alone = transferbench.evaluate(small.model, small.x, small.y, **given)
    assert transferbench.evaluate(small.model, small.x, small.y, workers=2, **given).verdicts.equals(alone.verdicts)
    assert transferbench.evaluate(small.model, small.x, small.y, device="auto", **given).robust == alone.robust


def test_one_thread_is_taken_where_it_is_faster(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seconds = torch.get_num_threads(), {2: 2.0, 1: 1.0}

    def timed(network: object, sample: object, count: int) -> object:
        torch.set_num_threads(count)
        return seconds[count], (small.x, small.y if count == 1 else other)

    monkeypatch.setattr(threads, "_timed", timed)
    try:
        torch.set_num_threads(2)
        other = small.y
        with threads.fastest_threads(small.model, small.x) as chosen:
            assert chosen == torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        other = small.y + 1
        with threads.fastest_threads(small.model, small.x) as chosen:
            assert chosen == torch.get_num_threads() == 2, "other bits: the caller's threads"
        other, seconds[2] = small.y, 0.5
        with threads.fastest_threads(small.model, small.x) as chosen:
            assert chosen == 2
    finally:
        torch.set_num_threads(before)

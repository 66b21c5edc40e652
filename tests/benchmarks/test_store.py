"""What the store, its checkpoints and a cluster add to a job of about ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.tiny_suite import Recorder

from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.jobs.job import Job
from transferbench.scheduling.scheduler import Runner
from transferbench.store import checkpoint_file
from transferbench.store.store import Store

TITLE = "Store and cluster"
WHAT = (
    "One chain on 200 letters that nothing breaks, about ten seconds. *Around the job*: wall time from when it is "
    "known to be next to when its result is committed, less what it took itself, as a share of it. *Checkpoints*: "
    "wall time inside the job spent on saving unfinished work. The cluster is one local worker that has imported "
    "everything before."
)
TRAIN = Job(
    "train",
    "train source",
    {
        "victim": "source",
        "plugin": "natural",
        "settings": {"steps": 150, "batch_size": 128, "seed": 0},
        "dataset": "letters",
        "network": "small-resnet",
    },
)


def attack(n_iter: int, *after: Job) -> Job:
    chain = Chain("L2", ThreatModel.parse("L2", "1e-4"), (AttackSpec.of("apgd-ce", n_iter=n_iter, restarts=1),))
    where = {"dataset": "letters", "start": 0, "stop": 200, "seed": 0}
    return Job(
        "attack",
        f"L2, {n_iter} iterations",
        {"chain": chain.as_dict(), **where},
        (TRAIN.name, *(job.name for job in after)),
    )


class Watching(Recorder):
    """Remembers when a job was begun and when it was committed."""

    def __init__(self) -> None:
        super().__init__()
        self.took: dict[str, float] = {}

    def begin(self, job: Job, number: int, total: int) -> None:
        self.took[job.name] = -time.perf_counter()

    def end(self, job: Job, reused: bool) -> None:
        super().end(job, reused)
        self.took[job.name] += time.perf_counter()


@pytest.mark.parametrize("cluster", [None, "local:1"])
def test_store_and_cluster(
    cluster: str | None, tmp_path: Path, benchmark: Any, note: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    saving, save = [0.0], checkpoint_file.Checkpoint.save

    def timed(self: checkpoint_file.Checkpoint, state: dict[str, Any]) -> None:
        began = time.perf_counter()
        save(self, state)
        saving[0] += time.perf_counter() - began

    shares: list[float] = []
    seconds: list[float] = []

    def measure() -> None:
        reporter = Watching()
        with Store(tmp_path / "s") as store:
            # How fast this machine is now; then a short job that warms the worker up, and the long one after it.
            runner, probe = Runner(store, cluster=cluster), attack(60)
            runner.run([TRAIN, probe], reporter, here=True)
            warm = attack(3)
            job = attack(int(60 * 10 / runner.results[probe.name]["seconds"]), warm)
            monkeypatch.setattr(checkpoint_file.Checkpoint, "save", timed)
            runner.run([TRAIN, warm, job], reporter)
            result = runner.results[job.name]
            assert all(rank == -1 for rank in result["verdicts"]["rank"])
            seconds.append(result["seconds"])
            shares.append(reporter.took[job.name] / result["seconds"] - 1)

    benchmark.pedantic(measure, rounds=1)
    inside = "(in the worker)" if cluster else f"{100 * saving[0] / seconds[0]:.2f} %"
    row = [cluster or "this process", f"{seconds[0]:.1f}", f"{100 * shares[0]:.2f} %", inside]
    note(TITLE, WHAT, ["where", "job, s", "around the job", "checkpoints"], row)

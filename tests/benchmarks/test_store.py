"""What the store, its checkpoints and a cluster add to a job of about ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny_suite import Recorder

from transferbench.base.settings import RunSettings
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.jobs.attack import AttackJob
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.job import Job
from transferbench.jobs.networks import TrainedNetwork
from transferbench.jobs.train import TrainJob
from transferbench.scheduling.scheduler import Scheduler
from transferbench.store.checkpoint_file import CheckpointFile
from transferbench.store.store import Store

TITLE = "Store and cluster"
WHAT = (
    "One chain on 200 letters that nothing breaks, about ten seconds. *Around the job*: wall time from when it is "
    "known to be next to when its result is committed, less what it took itself, as a share of it. *Checkpoints*: "
    "wall time inside the job spent on saving unfinished work. The cluster is one local worker that has imported "
    "everything before."
)
TRAIN = TrainJob(
    "train source",
    "source",
    "natural",
    (("steps", 150), ("batch_size", 128), ("seed", 0)),
    "letters",
    network="small-resnet",
)


def attack(n_iter: int) -> AttackJob:
    chain = Chain("L2", ThreatModel.parse("L2", "1e-4"), (AttackSpec.of("apgd-ce", n_iter=n_iter, restarts=1),))
    return AttackJob(
        f"L2, {n_iter} iterations", TrainedNetwork(TRAIN), ImagesInput("letters", "", 0, 200), chain, seed=0
    )


class Timer(Recorder):
    """Records how long each job took from its beginning to its commit."""

    def __init__(self) -> None:
        super().__init__()
        self.took: dict[str, float] = {}

    def begin(self, job: Job[Any], number: int, total: int) -> None:
        self.took[job.name] = -time.perf_counter()

    def end(self, job: Job[Any], seconds: float | None) -> None:
        super().end(job, seconds)
        now = time.perf_counter()
        self.took[job.name] += now
        # One worker: a job that was submitted early begins when the one before it ends.
        self.took |= {name: -now for name, took in self.took.items() if took < 0}


@pytest.mark.parametrize("cluster", [None, "local:1"])
def test_store_and_cluster(
    cluster: str | None, tmp_path: Path, benchmark: Any, note: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    saving, save = [0.0], CheckpointFile.save

    def timed(self: CheckpointFile, state: dict[str, Any]) -> None:
        began = time.perf_counter()
        save(self, state)
        saving[0] += time.perf_counter() - began

    shares: list[float] = []
    seconds: list[float] = []

    def measure() -> None:
        reporter = Timer()
        with Store(tmp_path / "s") as store:
            # How fast this machine is now; then a short job that warms the worker up, and the long one.
            probe, warm = attack(60), attack(3)
            local = Scheduler(store, RunSettings())
            local.run([TRAIN, probe], reporter)
            job = attack(int(60 * 10 / local.results.of(probe).execution.seconds))
            monkeypatch.setattr(CheckpointFile, "save", timed)
            scheduler = Scheduler(store, RunSettings(cluster=cluster))
            scheduler.run([TRAIN, warm, job], reporter)
            result = scheduler.results.of(job)
            assert all(verdict.rank == -1 for verdict in result.verdicts)
            seconds.append(result.execution.seconds)
            shares.append(reporter.took[job.name] / result.execution.seconds - 1)

    benchmark.pedantic(measure, rounds=1)
    inside = "(in the worker)" if cluster else f"{100 * saving[0] / seconds[0]:.2f} %"
    row = [cluster or "this process", f"{seconds[0]:.1f}", f"{100 * shares[0]:.2f} %", inside]
    note(TITLE, WHAT, ["where", "job, s", "around the job", "checkpoints"], row)

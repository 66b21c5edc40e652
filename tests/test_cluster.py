"""Workers as processes of their own, on loopback: the same table from any number of them, whatever happens to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from suite import TINY, Silent, go

from transferbench.base.errors import InputError
from transferbench.jobs.executor import Executor, NotHereError, Place
from transferbench.jobs.job import Job
from transferbench.models import networks, weights
from transferbench.results import verification
from transferbench.scheduling.backends.dask import Cluster
from transferbench.scheduling.scheduler import Runner
from transferbench.store.reader import Reader
from transferbench.store.store import Store

HERE = Path(__file__).parent


def dask(*words: str, cwd: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *words], stdout=quiet, stderr=quiet, cwd=cwd, env=environment
    )


class Site:
    """A real scheduler and real workers, each a process that `dask` started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.workers = folder, folder / "scheduler.json", []
        self.scheduler = dask(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.file),
            cwd=folder,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self.file.is_file() or not self.file.read_text():
            assert time.monotonic() < deadline, "the scheduler does not start"
            time.sleep(0.1)
        import json

        self.address: str = json.loads(self.file.read_text())["address"]

    def add(self, threads: int = 1) -> subprocess.Popen[bytes]:
        """One more worker, without a nanny: nobody brings it back when it dies."""
        worker = dask(
            "worker", self.address, "--nthreads", str(threads), "--no-nanny", "--no-dashboard", "--memory-limit", "0",
            "--local-directory", str(self.folder), "--death-timeout", "60",
            cwd=self.folder,
        )  # fmt: skip
        self.workers.append(worker)
        return worker


@contextmanager
def site(folder: Path, workers: int) -> Iterator[Site]:
    made = Site(folder)
    try:
        for _ in range(workers):
            made.add()
        yield made
    finally:
        for process in (*made.workers, made.scheduler):
            process.kill()
            process.wait(30)


class Killing(Silent):
    """Kills one of the site's workers after each of the numbers of finished jobs, and starts another one."""

    def __init__(self, where: Site, after: list[int]) -> None:
        super().__init__()
        self.where, self.after, self.killed = where, list(after), 0

    def end(self, job: Job, reused: bool) -> None:
        super().end(job, reused)
        if self.after and len(self.run) >= self.after[0]:
            self.after.pop(0)
            victim = next(worker for worker in self.where.workers if worker.poll() is None)
            victim.send_signal(signal.SIGKILL)
            victim.wait(30)
            self.killed += 1
            self.where.add()


def test_two_workers_of_a_scheduler_of_ones_own_and_both_are_lost(tmp_path: Path, table: bytes) -> None:
    with site(tmp_path, 2) as where:
        reporter = Killing(where, [3, 8])
        go(tmp_path / "out", reporter, cluster=where.address)
        assert reporter.killed == 2
        assert reporter.reasons == []
        # The workers are the user's: they live on.
        assert sum(worker.poll() is None for worker in where.workers) == 2
    assert (tmp_path / "out" / "leaderboard.csv").read_bytes() == table
    assert verification.verify(tmp_path / "out") == []


def test_four_workers_begin_and_one_goes_on_without_seeing_the_folder(
    tmp_path: Path, table: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has no file of the run gets weights and crafted sets by content."""

    class Stops(Silent):
        def end(self, job: Job, reused: bool) -> None:
            super().end(job, reused)
            if len(self.run) == 6:
                raise KeyboardInterrupt

    root = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        go(root, Stops(), cluster="local:4")
    done = len(Reader(root).jobs())
    assert done >= 6
    task = Runner.task

    def elsewhere(self: Runner, *words: Any) -> Any:
        made = task(self, *words)
        return replace(made, place=replace(made.place, root=tmp_path / "not" / "mounted"))

    monkeypatch.setattr(Runner, "task", elsewhere)
    reporter = go(root, cluster="local:1", batch_size=7)
    assert len(reporter.found) == done
    assert (root / "leaderboard.csv").read_bytes() == table
    assert verification.verify(root) == []


def test_a_job_that_kills_its_workers_is_reported_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    jobs = [
        Job("clean", f"{name}: clean", {"victim": f"python:cluster_models:{name}", "dataset": "digits", "stop": 50})
        for name in ("deadly", "harmless")
    ]
    reporter = Silent()
    with site(tmp_path, 1) as where, Store(tmp_path / "out") as store:
        runner = Runner(store, cluster=where.address)
        # Nobody is left to do the other job: bring a worker for everyone that dies.
        for _ in range(3):
            where.add()
        runner.run(jobs, reporter)
    assert list(runner.failures.values()) == [reporter.reasons[0]]
    assert "deadly: clean: 4 workers died on it" in reporter.reasons[0]
    assert runner.results[jobs[1].name]["n"] == 50
    states = {job.label: job.state for job in Reader(tmp_path / "out").planned()}
    assert states == {"deadly: clean": "failed", "harmless: clean": "done"}


def test_a_worker_with_two_threads_is_refused(tmp_path: Path) -> None:
    """Two jobs in one process would share a network and a thread setting."""
    spec = {"victim": "file:small-resnet=w.safetensors", "dataset": "digits", "stop": 20}
    spec["victim"] = f"file:small-resnet={tmp_path}/w.safetensors"
    weights.write(networks.build("small-resnet", 10).model.state_dict(), tmp_path / "w.safetensors")
    with site(tmp_path, 0) as where, Store(tmp_path / "out") as store:
        where.add(threads=2)
        runner = Runner(store, cluster=where.address)
        runner.run([Job("clean", "x", spec)], Silent())
    assert "has 2 threads: start it with --nthreads 1" in next(iter(runner.failures.values()))


def children_of(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_no_process_is_left_behind_and_what_is_finished_is_kept(how: int, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group, as in a terminal; SIGKILL the driver alone."""
    text = TINY.replace("n_iter: 4", "n_iter: 60").replace("n: 24", "n: 200")
    (tmp_path / "tiny.yaml").write_text(text)
    words = ["-m", "transferbench.cli", "run", "tiny.yaml", "--out", "out", "--cluster", "local:2"]
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test session in the background ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("[4/"):
            break
    workers = children_of(process.pid)
    assert len(workers) >= 2
    if how == signal.SIGINT:
        os.killpg(process.pid, how)
    else:
        process.kill()
    rest = process.stderr.read() if how == signal.SIGINT else ""
    assert process.wait(60) == (130 if how == signal.SIGINT else -how), rest
    assert "Traceback" not in rest, rest
    deadline = time.monotonic() + 30
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline, "workers outlive their driver"
        time.sleep(0.2)
    done = len(Reader(tmp_path / "out").jobs())
    assert 4 <= done < 22
    reporter = go(tmp_path / "out", text=text)
    assert len(reporter.found) == done
    go(tmp_path / "whole", text=text)
    tables = [(tmp_path / folder / "leaderboard.csv").read_bytes() for folder in ("out", "whole")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("local:0", "write local:4"),
        ("local:x", "write local:4"),
        ("ssh://host", "write local:N"),
        ("tcp://127.0.0.1:9", "no scheduler answers"),
    ],
)
def test_addresses_that_lead_nowhere(address: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transferbench.scheduling.backends import dask

    monkeypatch.setattr(dask, "_CONNECT", 2)
    for asked in (Cluster, lambda address: dask.check(address, "cpu")):
        with pytest.raises(InputError, match=complaint):
            asked(address)


def test_gpus_are_pinned_one_for_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    from transferbench.scheduling.backends import dask

    made: list[dict[str, Any]] = []
    monkeypatch.setattr("distributed.SpecCluster", lambda **given: made.append(given))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    dask._start(2, "cuda")
    pinned = [spec["options"]["env"] for spec in made[0]["workers"].values()]
    assert pinned == [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"}]
    with pytest.raises(InputError, match="3 GPUs are visible"):
        dask.check("local:4", "cuda")
    dask.check("local:3", "cuda")


def test_a_worker_stops_when_nobody_wants_its_job_any_more(tmp_path: Path) -> None:
    """Workers belong to the user: after Ctrl-C they must not go on for hours with what was taken back."""
    import distributed

    text = TINY.replace("n_iter: 4, targets: 2", "n_iter: 30000, targets: 9")

    class Stops(Silent):
        def update(self, job: Job, done: int, total: int, robust: int | None) -> None:
            if job.kind == "attack" and robust is not None:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with site(tmp_path, 1) as where:
        try:
            with pytest.raises(KeyboardInterrupt):
                go(tmp_path / "out", Stops(), text, cluster=where.address)
        finally:
            signal.signal(signal.SIGINT, before)
        with distributed.Client(where.address, set_as_default=False) as client:
            assert client.submit(os.getpid).result(timeout=30) == where.workers[0].pid


def test_an_executor_does_not_grow(tmp_path: Path) -> None:
    executor = Executor(Place(tmp_path))
    for number in range(7):
        weights.write(networks.build("small-resnet", 10).model.state_dict(), tmp_path / f"{number}.safetensors")
        spec = {"victim": f"file:small-resnet={tmp_path}/{number}.safetensors", "dataset": "digits", "stop": 20}
        executor.execute(Job("clean", "x", spec), {}, {})
    assert len(executor._victims) == len(executor._targets) == 4


def test_a_remote_executor_asks_for_what_it_cannot_read(tmp_path: Path) -> None:
    job = Job("clean", "x", {"victim": "file:small-resnet=none.pt", "dataset": "digits", "stop": 20})
    executor = Executor(Place(tmp_path / "nowhere"), remote=True)
    driver = Executor(Place(tmp_path))
    content = {"data": driver.part(job).fingerprint, "victim": "0" * 64}
    with pytest.raises(NotHereError) as asked:
        executor.execute(job, {}, content)
    assert asked.value.args[0] == ("victim", "file:small-resnet=none.pt")
    with pytest.raises(NotHereError) as asked:
        executor.execute(job, {}, {**content, "data": "another"})
    assert asked.value.args[0] == ("images", "digits", "", "0", "20")


@pytest.mark.slow
def test_twenty_lost_workers(tmp_path: Path, table: bytes) -> None:
    killed, run = 0, 0
    while killed < 20:
        run += 1
        folder = tmp_path / str(run)
        folder.mkdir()
        with site(folder, 3) as where:
            reporter = Killing(where, [2, 5, 9, 14])
            go(folder / "out", reporter, cluster=where.address)
            killed += reporter.killed
        assert reporter.reasons == []
        assert (folder / "out" / "leaderboard.csv").read_bytes() == table
        assert verification.verify(folder / "out") == []


def test_what_is_lent_takes_the_place_of_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that can read neither data nor weights does the same with what the driver gives it."""
    weights.write(networks.build("small-resnet", 10).model.state_dict(), tmp_path / "w.safetensors")
    spec = {"victim": f"file:small-resnet={tmp_path}/w.safetensors", "dataset": "digits", "stop": 40}
    clean = Job("clean", "x", spec)
    settings = {"steps": 3, "batch_size": 16, "seed": 0}
    names = {"victim": "v", "plugin": "natural", "network": "small-resnet"}
    training = Job("train", "t", {**names, "settings": settings, "dataset": "digits"})
    driver, remote = Executor(Place(tmp_path)), Executor(Place(tmp_path / "nowhere"), remote=True)
    for job, wanted in ((clean, {"victim", "images"}), (training, {"splits"})):
        content = driver.content(job, {})
        whole, kept = driver.execute(job, {}, content)
        known = {need: driver.lend(need, job, {}) for need in driver.needs(job, {})}
        asked: dict[Any, Any] = {}
        with monkeypatch.context() as patch:
            for gone in ("load_victim", "train.load_splits", "data.load"):
                patch.setattr(f"transferbench.jobs.executor.{gone}", refuse)
            while True:
                try:
                    got, tensors = remote.execute(job, {}, content, lent=asked)
                    break
                except NotHereError as error:
                    need = error.args[0]
                    assert need not in asked, "what was lent is not asked for again"
                    asked[need] = known[need]
        assert {need[0] for need in asked} == wanted
        for name in ("correct", "validation_accuracy", "log"):
            assert got.get(name) == whole.get(name)
        assert kept.keys() == tensors.keys()
        assert all(torch.equal(kept[name], tensors[name]) for name in kept)


def test_other_weights_under_the_same_name_are_another_network(tmp_path: Path) -> None:
    """A worker that serves on after a file was replaced must not judge with what it prepared before."""
    path = tmp_path / "w.safetensors"
    job = Job("clean", "x", {"victim": f"file:small-resnet={path}", "dataset": "digits", "stop": 200})
    remote, counts = Executor(Place(tmp_path), remote=True), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        weights.write(networks.build("small-resnet", 10).model.state_dict(), path)
        driver = Executor(Place(tmp_path))
        content = driver.content(job, {})
        lent = {need: driver.lend(need, job, {}) for need in driver.needs(job, {}) if seed and need[0] == "victim"}
        got = [remote.execute(job, {}, content, lent=lent)[0], driver.execute(job, {}, content)[0]]
        assert got[0]["correct"] == got[1]["correct"]
        counts.append(got[0]["correct"])
    assert counts[0] != counts[1]


def refuse(*_: Any) -> None:
    raise InputError("not on this machine")

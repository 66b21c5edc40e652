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
from support.stopped_run import stop_run
from support.tiny_suite import TINY, Recorder, run_tiny

from transferbench.base.errors import InputError
from transferbench.base.progress import Progress
from transferbench.base.settings import RunSettings
from transferbench.jobs.clean import CleanJob
from transferbench.jobs.execution import check_inputs, execute
from transferbench.jobs.inputs import ImagesInput, Input, MissingInputError, NetworkInput, SampleInput, SplitsInput
from transferbench.jobs.job import Job, Output, Results
from transferbench.jobs.networks import PublicNetwork
from transferbench.jobs.resources import Resources
from transferbench.jobs.train import TrainJob
from transferbench.models import networks, weights
from transferbench.results import verification
from transferbench.scheduling.backends.dask import DaskBackend
from transferbench.scheduling.scheduler import Scheduler
from transferbench.store.reader import Reader
from transferbench.store.store import Store

SUPPORT = Path(__file__).parent.parent / "support"


def dask(*words: str, cwd: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
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


class Killing(Recorder):
    """Kills one of the site's workers after each of the numbers of finished jobs, and starts another one."""

    def __init__(self, where: Site, after: list[int]) -> None:
        super().__init__()
        self.where, self.after, self.killed = where, list(after), 0

    def end(self, job: Job, seconds: float | None) -> None:
        super().end(job, seconds)
        if self.after and len(self.run) >= self.after[0]:
            self.after.pop(0)
            victim = next(worker for worker in self.where.workers if worker.poll() is None)
            victim.send_signal(signal.SIGKILL)
            victim.wait(30)
            self.killed += 1
            self.where.add()


@pytest.mark.slow
def test_two_workers_of_a_scheduler_of_ones_own_and_both_are_lost(tmp_path: Path, table: bytes) -> None:
    with site(tmp_path, 2) as where:
        reporter = Killing(where, [3, 8])
        run_tiny(tmp_path / "out", reporter, cluster=where.address)
        assert reporter.killed == 2
        assert reporter.reasons == []
        # The workers are the user's: they live on.
        assert sum(worker.poll() is None for worker in where.workers) == 2
    assert (tmp_path / "out" / "leaderboard.csv").read_bytes() == table
    assert verification.verify(tmp_path / "out") == []


@pytest.mark.slow
def test_two_workers_begin_and_one_goes_on_without_seeing_the_folder(
    tmp_path: Path, table: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has no file of the run gets weights and crafted sets by content."""

    class Stops(Recorder):
        def end(self, job: Job, seconds: float | None) -> None:
            super().end(job, seconds)
            if len(self.run) == 6:
                raise KeyboardInterrupt

    root = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_tiny(root, Stops(), cluster="local:2")
    done = len(Reader(root).jobs())
    assert done >= 6
    task = Scheduler.task

    def elsewhere(self: Scheduler, *words: Any) -> Any:
        made = task(self, *words)
        return replace(made, settings=replace(made.settings, root=tmp_path / "not" / "mounted"))

    monkeypatch.setattr(Scheduler, "task", elsewhere)
    reporter = run_tiny(root, cluster="local:1", batch_size=7)
    assert len(reporter.found) == done
    assert (root / "leaderboard.csv").read_bytes() == table
    assert verification.verify(root) == []


@pytest.mark.slow
def test_a_job_that_kills_its_workers_is_reported_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SUPPORT))
    jobs = [clean(f"python:cluster_models:{name}", 50, f"{name}: clean") for name in ("deadly", "harmless")]
    reporter = Recorder()
    with site(tmp_path, 1) as where, Store(tmp_path / "out") as store:
        scheduler = Scheduler(store, RunSettings(cluster=where.address))
        # Nobody is left to do the other job: bring a worker for everyone that dies.
        for _ in range(3):
            where.add()
        scheduler.run(jobs, reporter)
    assert list(scheduler.failures.values()) == [reporter.reasons[0]]
    assert "deadly: clean: 4 workers died on it" in reporter.reasons[0]
    assert scheduler.results.of(jobs[1]).n == 50
    states = {job.label: job.state for job in Reader(tmp_path / "out").planned()}
    assert states == {"deadly: clean": "failed", "harmless: clean": "done"}


def test_a_worker_with_two_threads_is_refused(tmp_path: Path) -> None:
    """Two jobs in one process would share a network and a thread setting."""
    job = clean(f"file:small-resnet={tmp_path}/w.safetensors", 20)
    weights.write(networks.build("small-resnet", 10).model.state_dict(), tmp_path / "w.safetensors")
    with site(tmp_path, 0) as where, Store(tmp_path / "out") as store:
        where.add(threads=2)
        scheduler = Scheduler(store, RunSettings(cluster=where.address))
        scheduler.run([job], Recorder())
    assert "has 2 threads: start it with --nthreads 1" in next(iter(scheduler.failures.values()))


def children_of(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind_and_what_is_finished_is_kept(how: int, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group, as in a terminal; SIGKILL the driver alone."""
    text = TINY.replace("n_iter: 4", "n_iter: 12").replace("n: 24", "n: 40")
    (tmp_path / "tiny.yaml").write_text(text)
    after_four = lambda line: line.startswith("[4/") and ": begins" not in line  # noqa: E731
    count = stop_run(tmp_path, ["--cluster", "local:2"], how, after_four, lambda driver: children_of(driver.pid))
    assert count >= 2
    done = len(Reader(tmp_path / "out").jobs())
    assert 4 <= done < 22
    reporter = run_tiny(tmp_path / "out", text=text)
    assert len(reporter.found) == done


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
    for asked in (lambda address: DaskBackend(address, "cpu", print), lambda address: dask.check(address, "cpu")):
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


@pytest.mark.slow
def test_a_worker_stops_when_nobody_wants_its_job_any_more(tmp_path: Path) -> None:
    """Workers belong to the user: after Ctrl-C they must not go on for hours with what was taken back."""
    import distributed

    text = TINY.replace("n_iter: 4, targets: 2", "n_iter: 30000, targets: 9")

    class Stops(Recorder):
        def update(self, job: Job, progress: Progress) -> None:
            if job.kind == "attack" and progress.robust is not None:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with site(tmp_path, 1) as where:
        try:
            with pytest.raises(KeyboardInterrupt):
                run_tiny(tmp_path / "out", Stops(), text, cluster=where.address)
        finally:
            signal.signal(signal.SIGINT, before)
        with distributed.Client(where.address, set_as_default=False) as client:
            assert client.submit(os.getpid).result(timeout=30) == where.workers[0].pid


def clean(model: str, stop: int, label: str = "x") -> CleanJob:
    return CleanJob(label, PublicNetwork(model), ImagesInput("digits", "", stop=stop))


def test_the_resources_of_a_process_do_not_grow(tmp_path: Path) -> None:
    resources = Resources(RunSettings(tmp_path))
    # Networks of a few hundred kB would all stay: here none has room, so that the last four do.
    resources._networks.most_bytes = resources._targets.most_bytes = 0
    for number in range(7):
        weights.write(networks.build("small-resnet", 10).model.state_dict(), tmp_path / f"{number}.safetensors")
        execute(clean(f"file:small-resnet={tmp_path}/{number}.safetensors", 20), resources, Results())
    assert len(resources._networks) == len(resources._targets) == 4


def remote(
    job: Job[Any], resources: Resources, content: dict[str, Any], shared: dict[Input, Any] | None = None
) -> Output:
    """What a worker does with a task."""
    with resources.sharing(shared or {}):
        check_inputs(job, resources, content, Results())
        return execute(job, resources, Results())


def test_a_remote_process_names_the_input_that_it_cannot_read(tmp_path: Path) -> None:
    job = clean("file:small-resnet=none.pt", 20)
    worker, driver = Resources(RunSettings(tmp_path / "nowhere"), remote=True), Resources(RunSettings(tmp_path))
    content = {"data": driver.fingerprint(job.images), "victim": "0" * 64}
    with pytest.raises(MissingInputError) as error:
        remote(job, worker, content)
    assert error.value.args[0] == NetworkInput("file:small-resnet=none.pt")
    with pytest.raises(MissingInputError) as error:
        remote(job, worker, {**content, "data": "another"})
    assert error.value.args[0] == ImagesInput("digits", "", 0, 20)


@pytest.mark.slow
def test_twenty_lost_workers(tmp_path: Path, table: bytes) -> None:
    killed, run = 0, 0
    while killed < 20:
        run += 1
        folder = tmp_path / str(run)
        folder.mkdir()
        with site(folder, 3) as where:
            reporter = Killing(where, [2, 5, 9, 14])
            run_tiny(folder / "out", reporter, cluster=where.address)
            killed += reporter.killed
        assert reporter.reasons == []
        assert (folder / "out" / "leaderboard.csv").read_bytes() == table
        assert verification.verify(folder / "out") == []


def test_shared_inputs_take_the_place_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that can read neither data nor weights does the same with what the driver sends."""
    weights.write(networks.build("small-resnet", 10).model.state_dict(), tmp_path / "w.safetensors")
    training = TrainJob(
        "t", "v", "natural", (("steps", 3), ("batch_size", 16), ("seed", 0)), "digits", network="small-resnet"
    )
    driver, worker = Resources(RunSettings(tmp_path)), Resources(RunSettings(tmp_path / "nowhere"), remote=True)
    jobs: list[tuple[Job[Any], set[type]]] = [
        (clean(f"file:small-resnet={tmp_path}/w.safetensors", 40), {NetworkInput, ImagesInput, SampleInput}),
        (training, {SplitsInput}),
    ]
    for job, wanted in jobs:
        content = job.content(driver, Results())
        whole = execute(job, driver, Results())
        needs = {need.input: need.input.share(driver) for need in job.needs(driver, content, Results())}
        shared: dict[Input, Any] = {}
        with monkeypatch.context() as patch:
            patch.setattr("transferbench.models.victims.load", refuse)
            patch.setattr("transferbench.jobs.inputs.load_splits", refuse)
            patch.setattr("transferbench.data.load", refuse)
            while True:
                try:
                    got = remote(job, worker, content, shared)
                    break
                except MissingInputError as error:
                    missing = error.args[0]
                    assert missing not in shared, "what was shared is not asked for again"
                    shared[missing] = needs[missing]
        assert {type(given) for given in shared} == wanted
        assert replace(got.result, execution=whole.result.execution) == whole.result
        assert got.tensors.keys() == whole.tensors.keys()
        assert all(torch.equal(got.tensors[name], whole.tensors[name]) for name in whole.tensors)


def test_other_weights_under_the_same_name_are_another_network(tmp_path: Path) -> None:
    """A worker that serves on after a file was replaced must not judge with what it prepared before."""
    path = tmp_path / "w.safetensors"
    job = clean(f"file:small-resnet={path}", 200)
    worker, counts = Resources(RunSettings(tmp_path), remote=True), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        weights.write(networks.build("small-resnet", 10).model.state_dict(), path)
        driver = Resources(RunSettings(tmp_path))
        content, wanted = job.content(driver, Results()), NetworkInput(f"file:small-resnet={path}")
        shared: dict[Input, Any] = {wanted: wanted.share(driver)} if seed else {}
        results = [remote(job, worker, content, shared).result, execute(job, driver, Results()).result]
        assert results[0].correct == results[1].correct
        counts.append(results[0].correct)
    assert counts[0] != counts[1]


def refuse(*_: Any, **__: Any) -> None:
    raise InputError("not on this machine")

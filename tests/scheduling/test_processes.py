"""Worker processes of this machine: who runs what, in which order, and what happens to those that die."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import cloudpickle
import psutil
import pytest
from support.place_jobs import DividedJob, PlaceJob
from support.stopped_run import stop_run
from support.tiny_suite import TINY, Recorder, run_tiny

from transferbench.base.errors import FaultError, InputError
from transferbench.base.settings import RunSettings
from transferbench.jobs.job import Results
from transferbench.results import verification
from transferbench.scheduling import scheduler as scheduler_module
from transferbench.scheduling.backends import Task, processes
from transferbench.scheduling.backends.local import LocalBackend
from transferbench.scheduling.backends.messages import Request
from transferbench.scheduling.backends.process_worker import Worker
from transferbench.scheduling.scheduler import Scheduler
from transferbench.store.reader import Reader
from transferbench.store.store import Store, key_of


@pytest.fixture
def never_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little work: it goes to workers."""
    monkeypatch.setattr(scheduler_module, "_SMALL", -1.0)


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The worker processes of a driver; a session of tests has other children."""
    return [child for child in process.children() if "process_worker" in " ".join(child.cmdline())]


def begun(log: Path) -> list[tuple[str, str]]:
    """(label, GPU) in the order in which jobs began."""
    return [(label, gpu) for label, gpu, _ in map(str.split, log.read_text().splitlines())]


def test_four_gpus_longest_first_and_one_is_lost(tmp_path: Path) -> None:
    """The GPUs are faked: each worker says which one it sees. The third job kills its worker."""
    log = tmp_path / "log"
    log.touch()
    seconds = [0.1, 0.2, 0.3, 0.4, 1.2, 1.0, 1.1, 1.3]
    jobs = [PlaceJob(f"job{number}", str(log), one, deaths=one == 1.1) for number, one in enumerate(seconds)]
    last = PlaceJob("last", str(log), 0.05, needed=tuple(jobs))
    reporter = Recorder()
    with Store(tmp_path / "out") as store, Scheduler(store, RunSettings(workers=4, gpus=("5", "6", "7", "9"))) as where:
        where.run([*jobs, last], reporter)
        assert reporter.reasons == []
        assert len(reporter.run) == 9
        told = begun(log)
        # The killed one began twice, on whatever worker.
        assert sorted(label for label, _ in told) == sorted([*(job.label for job in jobs), "job6", "last"])
        assert {gpu for _, gpu in told} == {"5", "6", "7", "9"}
        order = list(dict.fromkeys(label for label, _ in told))
        assert set(order[:4]) == {"job4", "job5", "job6", "job7"}, "the longest began first"
        assert told[-1][0] == "last"
        # The workers live on, the lost one's place is filled: one after the other, all four GPUs are seen again.
        log.write_text("")
        # Long enough for the new worker to have begun on a busy machine.
        again = [PlaceJob(f"again{number}", str(log), 2.5) for number in range(4)]
        where.run(again, reporter)
        assert {gpu for _, gpu in begun(log)} == {"5", "6", "7", "9"}


def test_what_fails_is_reported_and_the_rest_goes_on(tmp_path: Path, never_small: None) -> None:
    log = tmp_path / "log"
    log.touch()
    deadly = PlaceJob("deadly", str(log), deaths=9)
    faulty = PlaceJob("faulty", str(log), fault="fault")
    after = PlaceJob("after", str(log), needed=(faulty,))
    sound = PlaceJob("sound", str(log))
    reporter = Recorder()
    with Store(tmp_path / "out") as store, Scheduler(store, RunSettings(workers=2)) as where:
        where.run([deadly, faulty, after, sound], reporter)
        assert sorted(reporter.reasons) == [
            "after: not run, because what it needs has failed",
            "deadly: 3 workers died on it, one after the other (out of memory, or killed from outside?)",
            "faulty: a fault of the job",
        ]
        assert where.results.of(sound).n == 1
        assert deadly.began() == 3
        # An error that nobody expects ends the run, with the place where it arose.
        with pytest.raises(ValueError, match="a slip") as caught:
            where.run([PlaceJob("slip", str(log), 0.1, fault="a slip"), PlaceJob("other", str(log))], reporter)
    assert "place_jobs.py" in "".join(caught.value.__notes__)


class _BrokenPipe(Recorder):
    def update(self, job: object, progress: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_closed_pipe_of_the_driver_is_not_a_workers_death(
    tmp_path: Path, never_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a file that is named as a module of Python, and not taken for it by workers."""
    (tmp_path / "queue.py").write_text("raise SystemExit('another queue')")
    monkeypatch.chdir(tmp_path)
    jobs = [PlaceJob(label, str(tmp_path / "log"), 0.7) for label in ("one", "two")]
    with Store(tmp_path / "out") as store, pytest.raises(BrokenPipeError):
        Scheduler(store, RunSettings(workers=2)).run(jobs, _BrokenPipe())


def test_an_exception_that_cannot_be_read_again_travels_as_text(tmp_path: Path) -> None:
    job = PlaceJob("slip", str(tmp_path / "log"), fault="no pickle")
    task = Task(job, "0" * 32, {}, Results(), RunSettings(root=tmp_path), {})
    ours, theirs = socket.socketpair()
    with Connection(ours.detach()) as here, Connection(theirs.detach()) as there:
        Worker(there)._answer(cloudpickle.dumps(Request(task, {}, {}, ())))
        answer = pickle.loads(here.recv_bytes())
    # Where another test has imported dask, every exception can be read again.
    assert str(answer.error) in ("TwoWordsError: two words", "two words")
    assert "place_jobs.py" in "".join(answer.error.__notes__)


def test_workers_that_do_not_start(
    tmp_path: Path, never_small: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No task is blamed for it; the last place that cannot be filled ends the run."""
    monkeypatch.setattr(processes, "_MODULE", "transferbench.no_such_worker")
    jobs = [PlaceJob(f"job{number}", str(tmp_path / "log")) for number in range(3)]
    reporter = Recorder()
    with Store(tmp_path / "out") as store, pytest.raises(FaultError, match=r"3 worker processes .* exit status 1 .*"):
        Scheduler(store, RunSettings(workers=2)).run(jobs, reporter)
    assert "going on with 1" in caplog.text
    assert reporter.reasons == []


def test_the_table_is_the_same_from_two_workers_that_are_killed(
    tmp_path: Path, table: bytes, never_small: None
) -> None:
    class Kills(Recorder):
        """Kills a worker after the third job, and stops the run after the twelfth."""

        def end(self, job: object, seconds: float | None) -> None:
            super().end(job, seconds)  # type: ignore[arg-type]
            if len(self.run) == 3:
                workers_of(psutil.Process())[0].kill()
            if len(self.run) == 12:
                raise KeyboardInterrupt

    root = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_tiny(root, Kills(), workers=2)
    assert workers_of(psutil.Process()) == []
    done = len(Reader(root).jobs())
    assert done >= 12
    assert len(run_tiny(root, workers=2).found) == done
    assert (root / "leaderboard.csv").read_bytes() == table
    assert verification.verify(root) == []
    assert not list((root / "unfinished").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind(how: int, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group, as in a terminal; SIGKILL the driver alone."""
    text = TINY.replace("n_iter: 4", "n_iter: 12").replace("n: 24", "n: 80").replace("steps: 30", "steps: 800")
    (tmp_path / "tiny.yaml").write_text(text)
    count = stop_run(tmp_path, ["--workers", "2"], how, lambda line: line.startswith("[2/"), workers_of)
    assert count == 2
    assert len(Reader(tmp_path / "out").jobs()) >= 1


def test_little_work_and_work_of_one_piece_stay_in_this_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    reporter = Recorder()
    with Store(tmp_path / "out") as store, Scheduler(store, RunSettings(workers=2, place="two of them")) as where:
        where.run([PlaceJob("little", str(log)), PlaceJob("less", str(log))], reporter)
        where.run([PlaceJob("one", str(log), 0.2)], reporter)
    assert {line.split()[2] for line in log.read_text().splitlines()} == {str(os.getpid())}
    assert reporter.notes == ["using the CPU: 1 core in this process (so little work needs no others)"]


def test_the_place_is_said_first_and_once(tmp_path: Path, never_small: None) -> None:
    """`eval` measures the clean accuracy in this process before it sends anything away."""
    jobs = [PlaceJob(label, str(tmp_path / "log")) for label in ("first", "second")]
    reporter = Recorder()
    with Store(tmp_path / "out") as store, Scheduler(store, RunSettings(workers=2, place="two of them")) as where:
        where.announce(jobs, reporter)
        where.run(jobs[:1], reporter, in_process=True)
        where.run(jobs, reporter, in_process=True)
    assert reporter.notes == ["two of them"]


def test_a_job_goes_on_as_it_was_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With however many workers: what was saved is of its parts, or of the whole job."""
    log, job = tmp_path / "log", DividedJob("job", str(tmp_path / "log"), 1.0)
    with Store(tmp_path / "out") as store:
        unfinished, key = store.root / "unfinished", key_of(job, {})
        unfinished.mkdir(exist_ok=True)
        (unfinished / f"{key}.1of3").touch()
        Scheduler(store, RunSettings()).run([job], Recorder())
        assert [label for label, _ in begun(log)] == ["job-0of3", "job-1of3", "job-2of3"]
        assert not list(unfinished.iterdir())
        monkeypatch.setattr(LocalBackend, "workers", 2)
        whole = replace(job, label="whole", seconds=0.1)
        (unfinished / key_of(whole, {})).touch()
        Scheduler(store, RunSettings()).run([whole], Recorder())
        assert begun(log)[3:] == [("whole", "None")]


def test_a_model_that_cannot_be_sent_to_workers_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot be sent .*lock.*: use workers=1"):
        processes.ProcessBackend(0, (), lambda *_: None).share(threading.Lock())

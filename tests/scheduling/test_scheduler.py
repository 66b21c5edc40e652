"""Killed anywhere, by anything: the next start goes on, and the table is byte for byte that of an unbroken run."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.tiny_suite import TINY, Recorder, run_tiny

from transferbench.base import atomic_files
from transferbench.base.errors import FaultError, InputError
from transferbench.cli.main import main
from transferbench.jobs.train import TrainJob
from transferbench.models import trained
from transferbench.results import verification
from transferbench.results.records import read_all
from transferbench.store.checkpoint_file import CheckpointFile
from transferbench.store.reader import Reader
from transferbench.store.store import Store, on_network
from transferbench.workflows import run_suite

JOBS = 28


class CrashError(BaseException):
    """Not an Exception: nothing in between may take it for one of its own."""


def crashing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, before: bool) -> None:
    """The `at`-th call of a function crashes, before or after it has done its work."""
    real, calls = getattr(owner, name), [0]

    def wrapped(*words: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == at and before:
            raise CrashError
        found = real(*words, **named)
        if calls[0] == at:
            raise CrashError
        return found

    monkeypatch.setattr(owner, name, wrapped)


POINTS: list[tuple[Any, str]] = [
    (Store, "finish"),
    (Store, "write_examples"),
    (Store, "mark"),
    (Store, "plan"),
    (atomic_files, "write"),
    (trained, "save"),
    (trained, "save_card"),
    (run_suite, "write_records"),
    (run_suite.build, "write"),
    (os, "fsync"),
    (os, "replace"),
]


OFTEN = ("finish",)
"""The points whose crashes every test run looks at; `make test-all` looks at all."""


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(
            point,
            id=f"{point[0].__name__}.{point[1]}",
            marks=() if point[1] in OFTEN else pytest.mark.slow,
        )
        for point in POINTS
    ],
)
def test_a_crash_at_any_commit_point_costs_nothing(
    point: tuple[Any, str], tmp_path: Path, table: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after the first call of a start; if it is called as often, before the fourth and after the second."""
    crashes = 0
    for at, before in ((1, True), (1, False), (4, True), (2, False)):
        with monkeypatch.context() as patch:
            crashing(patch, *point, at, before)
            try:
                run_tiny(tmp_path / "out")
            except CrashError:
                crashes += 1
    assert crashes >= 2
    reporter = run_tiny(tmp_path / "out")
    assert (tmp_path / "out" / "leaderboard.csv").read_bytes() == table
    assert len(reporter.run) + len(reporter.found) == JOBS
    assert verification.verify(tmp_path / "out") == []
    assert not list((tmp_path / "out").rglob("*.writing"))
    assert not list((tmp_path / "out" / "unfinished").iterdir())


def start(root: Path, *more: str, **popen: Any) -> subprocess.Popen[str]:
    path = root.parent / "tiny.yaml"
    path.write_text(popen.pop("text_of_suite", TINY))
    words = [sys.executable, "-m", "transferbench.cli", "run", str(path), "--out", str(root), *more]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, **popen
    )


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stderr is not None
    yield from process.stderr


def kill_after(process: subprocess.Popen[str], jobs: int, how: int = signal.SIGKILL) -> list[str]:
    """Kill a run once it has told of so many finished jobs; what it said."""
    said = []
    for line in lines(process):
        said.append(line)
        if sum(line.startswith("[") and ": begins" not in line for line in said) >= jobs:
            process.send_signal(how)
            break
    process.wait(60)
    return said


@pytest.mark.slow
def test_killed_twice_for_good(tmp_path: Path, table: bytes) -> None:
    root = tmp_path / "out"
    for jobs in (3, 6):
        process = start(root)
        kill_after(process, jobs)
        assert process.returncode == -signal.SIGKILL
    finished = len(Reader(root).jobs())
    assert finished >= 9
    reporter = run_tiny(root)
    assert len(reporter.found) >= finished
    assert (root / "leaderboard.csv").read_bytes() == table
    assert verification.verify(root) == []


@pytest.mark.slow
def test_fresh_runs_everything_anew_and_loses_nothing_on_the_way(tmp_path: Path, table: bytes) -> None:
    root = tmp_path / "out"
    run_tiny(root)

    class Stops(Recorder):
        def end(self, job: Any, seconds: float | None) -> None:
            super().end(job, seconds)
            if len(self.run) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tiny(root, reporter=Stops(), fresh=True)
    assert len(Reader(root).jobs()) == JOBS, "what is not yet replaced is still there"
    reporter = run_tiny(root, fresh=True)
    assert len(reporter.run) == JOBS
    assert (root / "leaderboard.csv").read_bytes() == table


@pytest.mark.slow
def test_a_damaged_file_of_examples_is_made_again(tmp_path: Path, table: bytes) -> None:
    root = tmp_path / "out"
    run_tiny(root)
    files = sorted((root / "examples").glob("*.safetensors"))
    for file in files:
        file.write_bytes(file.read_bytes() + b"x")
    assert len(run_tiny(root).run) >= len(files)
    assert (root / "leaderboard.csv").read_bytes() == table
    assert verification.verify(root) == []


def test_what_changed_is_named(tmp_path: Path) -> None:
    root = tmp_path / "out"
    run_tiny(root)
    notes = " ".join(run_tiny(root, text=TINY.replace('L2: "0.4"', 'L2: "0.5"')).notes)
    assert "finetune-s0: L2: run anew, chain.eps: 0.4 -> 0.5" in notes
    notes = " ".join(run_tiny(root, text=TINY.replace("lr: 0.02", "lr: 0.03")).notes)
    assert "train finetune-s0: run anew, settings.lr: 0.02 -> 0.03" in notes
    assert "finetune-s0: Linf: run anew, input 0:" in notes
    assert "probe-s0" not in notes


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, table: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: clock.uniform(-1e9, 4e9))
    root = tmp_path / "out"

    class Stops(Recorder):
        def end(self, job: Any, seconds: float | None) -> None:
            super().end(job, seconds)
            if len(self.run) == 9:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tiny(root, reporter=Stops())
    assert len(run_tiny(root).found) == 9
    assert (root / "leaderboard.csv").read_bytes() == table


@pytest.mark.parametrize(
    "limit", [pytest.param(size, marks=pytest.mark.slow) for size in (20_000, 60_000, 120_000, 400_000)]
)
def test_a_full_disk_ends_in_one_line_and_the_next_start_goes_on(limit: int, tmp_path: Path, table: bytes) -> None:
    """The kernel refuses to let a file grow beyond the limit, as a full disk does: database, weights, examples."""
    root = tmp_path / "out"
    process = start(root, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    said = list(lines(process))
    process.wait(60)
    assert process.returncode in (1, 2), said
    assert "Traceback" not in "".join(said)
    assert said[-1].startswith("transferbench: ")
    before = len(Reader(root).jobs()) if limit > 60_000 else 0
    reporter = run_tiny(root)
    assert len(reporter.found) >= before
    assert (root / "leaderboard.csv").read_bytes() == table


def test_a_folder_that_cannot_be_written_is_noticed_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "examples").write_text("a file is in the way")
    assert main(["run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("transferbench: error: --out ")
    assert len(said.splitlines()) == 1
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock"] == ["examples"]


def test_a_second_driver_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    root = tmp_path / "out"
    process = start(root)
    assert process.stderr is not None
    process.stderr.readline()
    with pytest.raises(InputError, match="another transferbench is writing there"):
        run_tiny(root)
    process.kill()
    process.wait(60)
    run_tiny(root)


def test_every_missing_verdict_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """n never shrinks: a shard that lost an example cannot become a record."""
    real = Store.finish

    def loses(self: Store, key: str, job: Any, content: Any, result: Any) -> None:
        if job.label == "probe-s0: L2":
            result = replace(result, verdicts=result.verdicts[1:])
        real(self, key, job, content, result)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "finish", loses)
        run_tiny(tmp_path / "out")
    with pytest.raises(FaultError, match="23 distinct verdicts where 24 were asked for"):
        run_tiny(tmp_path / "out")


def test_network_file_systems_are_told_from_local_ones(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"root / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\nd {tmp_path}/local xfs rw 0 0\n")
    assert on_network(tmp_path / "run" / "store.sqlite3", str(mounts))
    assert not on_network(tmp_path / "local" / "run" / "store.sqlite3", str(mounts))
    assert not on_network(Path("/else/store.sqlite3"), str(mounts))
    assert not on_network(tmp_path, str(tmp_path / "none"))


TRAIN = "train --plugin finetune --target digits --set steps=80 --set lr=0.02 --set seed=3"


def test_train_goes_on_and_knows_its_own_unfinished_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = "train --plugin natural --target letters --set steps=20 --set batch_size=64 --out source"
    assert main(source.split()) == 0
    words = [*TRAIN.split(), "--source", "source"]
    assert main([*words, "--out", "whole"]) == 0
    monkeypatch.setattr(CheckpointFile, "offer", lambda self, state: self.save(state()))
    saved, save = [0], CheckpointFile.save

    def stops(self: CheckpointFile, state: dict[str, Any]) -> None:
        save(self, state)
        saved[0] += 1
        if saved[0] in (15, 60):
            raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointFile, "save", stops)
    for _ in range(2):
        assert main([*words, "--out", "parts"]) == 130
    # Another training in the same place is refused, in words.
    capsys.readouterr()
    assert main([*words[:-4], "--set", "seed=4", "--source", "source", "--out", "parts"]) == 2
    assert "settings.seed: 3 -> 4" in capsys.readouterr().err
    assert main([*words, "--out", "parts"]) == 0
    assert "going on from its checkpoint" in capsys.readouterr().err
    for name in ("model.safetensors", "log.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [
        ".lock",
        "README.md",
        "curve.png",
        "examples",
        "log.csv",
        "model.safetensors",
        "store.sqlite3",
        "unfinished",
    ]
    capsys.readouterr()
    assert main([*words, "--out", "parts"]) == 0
    assert "it was trained before: nothing was run (--fresh trains it anew)" in capsys.readouterr().out
    assert main([*words, "--out", "parts", "--fresh"]) == 0


@pytest.mark.slow
def test_a_hundred_random_kills(tmp_path: Path, table: bytes) -> None:
    dice, root, kills = random.Random(1), tmp_path / "out", 0
    while kills < 100:
        process = start(root)
        try:
            process.wait(dice.uniform(0.5, 7))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)
            kills += 1
            continue
        assert process.returncode == 0
        assert (root / "leaderboard.csv").read_bytes() == table
        assert verification.verify(root) == []
        shutil.rmtree(root)
    run_tiny(root)
    assert (root / "leaderboard.csv").read_bytes() == table
    assert verification.verify(root) == []


LONG = TINY.replace("n_iter: 4, targets: 2", "n_iter: 400, targets: 9").replace("steps: 30", "steps: 3000")


@pytest.mark.slow
def test_a_start_that_lives_15_seconds_always_makes_progress(tmp_path: Path) -> None:
    """A training and shards that take longer than any of the starts, on whatever machine this is."""
    root, starts = tmp_path / "out", 0
    text = LONG.replace("n: 24", "n: 200")
    while True:
        process = start(root, text_of_suite=text)
        try:
            process.wait(15)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)
            starts += 1
            assert starts < 60
    assert process.returncode == 0
    (tmp_path / "other").mkdir()
    run_tiny(tmp_path / "other" / "out", text=text)
    assert (root / "leaderboard.csv").read_bytes() == (tmp_path / "other" / "out" / "leaderboard.csv").read_bytes()
    assert {record.n for record in read_all(root)} == {200}


def test_an_interrupt_that_a_library_turns_into_its_own_error_is_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swallowing(*_: Any, **__: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ValueError("while a serialiser was built") from None

    monkeypatch.setattr(TrainJob, "run", swallowing)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_tiny(tmp_path / "out")
    finally:
        signal.signal(signal.SIGINT, before)

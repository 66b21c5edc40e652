"""Several records at once, and several seeds: what one process finds, and what one seed has, the others do, too."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from support.tiny_suite import run, tiny

from transferbench.base.errors import FaultError, InputError
from transferbench.base.settings import RunSettings
from transferbench.results import verification
from transferbench.results.records import read, stamped
from transferbench.results.worker_processes import in_processes

# A source that is the same in both seeds, and an attack that draws nothing: its points are those of the other seed.
SUITE = """
name: tiny
title: two seeds from one source
n: 12
threats: {Linf: "0.4"}
protocol:
  description: "tiny"
  chains: {Linf: [{id: fgsm}]}
  source_only:
    eps: "0.4"
    attack: {id: source-pgd, k: 2}
    control: {id: random-sign, draws: 2}
    also: ["dispersion-reduction:n_iter=2"]
training:
  target_dataset: digits
  sources: [{name: natural, model: letters-natural}]
  rows: [{name: probe, method: probe, source: natural, set: {steps: 2, batch_size: 64}}]
"""
TWO = RunSettings(workers=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    run(tiny(folder, SUITE), folder / "out", seeds=(0, 1))
    return folder / "out"


@pytest.fixture
def two_seeds(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "out")
    return tmp_path / "out"


def stamps(root: Path) -> dict[str, bytes]:
    paths = sorted((root / "records").glob("*.json"))
    assert all(stamped(read(path)) for path in paths)
    return {path.stem: path.read_bytes() for path in paths}


def test_points_that_two_seeds_share_hold_in_both(two_seeds: Path) -> None:
    made = [
        next(
            one
            for one in read(two_seeds / "records" / f"probe-s{seed}.json").crafted
            if "dispersion" in one.attack["id"]
        )
        for seed in (0, 1)
    ]
    assert made[0].jobs != made[1].jobs
    assert verification.verify(two_seeds) == []


def test_two_processes_stamp_and_complain_as_one_does(two_seeds: Path, whole: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(whole, alone)
    told: list[str] = []
    assert verification.verify(two_seeds, TWO, lambda record, _: told.append(record.victim)) == []
    assert verification.verify(alone) == []
    assert stamps(two_seeds) == stamps(alone)
    assert sorted(told) == sorted(stamps(alone))
    for root in (two_seeds, alone):
        for victim in (root / "victims").glob("probe-s*"):
            path = victim / "model.safetensors"
            path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    complaints = verification.verify(two_seeds, TWO)
    assert complaints == [line.replace(str(alone), str(two_seeds)) for line in verification.verify(alone)]
    assert [line.partition(":")[0] for line in complaints] == ["probe-s0", "probe-s1"]


def test_a_folder_without_a_store_is_refused_before_processes_begin(two_seeds: Path) -> None:
    (two_seeds / "store.sqlite3").unlink()
    with pytest.raises(InputError, match="store"):
        verification.verify(two_seeds, TWO)


@pytest.mark.parametrize("spoil", ["a result", "the table"])
def test_what_no_process_can_read_is_said_as_by_one(spoil: str, two_seeds: Path) -> None:
    if spoil == "a result":
        with sqlite3.connect(two_seeds / "store.sqlite3") as db:
            db.execute("UPDATE jobs SET result = '{' WHERE kind = 'craft'")
    else:
        (two_seeds / "leaderboard.csv").write_text("rank\n1\n")
    with pytest.raises(InputError) as alone:
        verification.verify(two_seeds)
    with pytest.raises(InputError) as together:
        verification.verify(two_seeds, TWO)
    assert str(alone.value) == str(together.value)


def test_the_users_files_are_not_modules_of_the_processes(
    two_seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    assert verification.verify(two_seeds, TWO) == []
    assert not (tmp_path / "ran").exists()


def test_a_process_that_dies_is_said() -> None:
    with pytest.raises(FaultError, match="--workers 1"):
        list(in_processes(partial(os._exit, 9), [0, 1], 2, ()))


def test_each_process_sees_its_gpu() -> None:
    asked = ["sleep 0.4; echo $CUDA_VISIBLE_DEVICES"] * 10
    told = in_processes(partial(partial, subprocess.getoutput), asked, 2, ("3", "5"))
    assert {gpu for _, gpu in told} == {"3", "5"}


def test_a_single_record_goes_to_the_gpu_that_is_free(two_seeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (two_seeds / "records" / "probe-s1.json").unlink()
    seen: list[tuple[int, tuple[str, ...]]] = []

    def processes(_: object, items: list[object], workers: int, gpus: tuple[str, ...]) -> Iterator[object]:
        seen.append((workers, gpus))
        return iter(())

    monkeypatch.setattr(verification, "in_processes", processes)
    verification.verify(two_seeds, RunSettings(device="cuda", workers=2, gpus=("1", "2")))
    assert seen == [(min(2, len(list((two_seeds / "records").iterdir()))), ("1", "2"))]


def test_nothing_goes_on_when_an_answer_cannot_be_used() -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="non-negative"):
        list(in_processes(partial(partial, time.sleep), [0.01, -1, 60, 60, 60], 2, ()))
    answers = in_processes(partial(partial, time.sleep), [0.01, 60, 60, 60], 2, ())
    assert next(answers) == (0, None)
    answers.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 50


@pytest.mark.slow
def test_the_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    script = (
        "import time\nfrom functools import partial\n"
        "from transferbench.results.worker_processes import in_processes\n"
        "for answer in in_processes(partial(partial, time.sleep), [0, 0, 600, 600], 2, ()): print(answer, flush=True)"
    )
    words, pipe = [sys.executable, "-c", script], subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, cwd=tmp_path) as driver:
        assert driver.stdout is not None
        assert driver.stderr is not None
        # Both sleep for ten minutes after their first answers.
        told = [driver.stdout.readline() for _ in range(2)]
        assert all(told), driver.stderr.read().decode()
        children = psutil.Process(driver.pid).children()
        assert len(children) == 2
        driver.terminate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []

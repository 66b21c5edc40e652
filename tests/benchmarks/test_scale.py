"""A suite of a hundred victims at n = 10,000: planning, status, the store's cost per job; a board of 1,000 records."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from support.records import ORIGIN, stamped

from transferbench import suites
from transferbench.base.bits import pack_bits
from transferbench.base.results import (
    AttackResult,
    AttackTally,
    CleanResult,
    Cost,
    CraftResult,
    Execution,
    JobResult,
    JudgeResult,
    StoredFile,
    TrainResult,
    Verdict,
)
from transferbench.jobs.attack import AttackJob
from transferbench.jobs.craft import CraftJob
from transferbench.jobs.evaluation import EvaluationJob
from transferbench.jobs.job import Job
from transferbench.jobs.judge import JudgeJob
from transferbench.jobs.train import TrainJob
from transferbench.results.records import Bits, ChainRecord, CraftedRecord, Record, dump
from transferbench.scheduling.plan import plan
from transferbench.store.store import Store, key_of

TITLE = "Scale"
HEADER = ["what", "how much", "s", "own memory, MiB", "resident, MiB", "wanted"]
WHAT = (
    "A suite of 100 victims at n = 10,000 with the attacks of `eval` in three norms and a source-only attack, on "
    "images and results of the benchmark's own making, and a board of 1,000 records at n = 10,000. Each command runs "
    "in a process of its own, start-up included. *Own memory* is the largest anonymous resident memory (`RssAnon`), "
    "sampled every 10 ms; *resident* also counts the libraries' files, which processes share: those of torch, built "
    "for CUDA, alone take what the first row says. Written by `pytest -o addopts= tests/benchmarks/test_scale.py "
    "--benchmark-only`, a part of `make bench`."
)
N, VICTIMS, IMAGES = 10_000, 100, 8
ATTACKED = 1_000
"""Jobs that are finished one by one at the beginning and at the end, and timed."""

SUITE = """
name: scale
title: a hundred victims
n: {n}
threats: {{Linf: "8/255", L2: "0.5", L1: "12"}}
protocol:
  description: "scale"
  chains:
    Linf: &chain [{{id: apgd-ce}}, {{id: apgd-t}}]
    L2: *chain
    L1: *chain
  source_only:
    eps: "8/255"
    attack: {{id: pretrained-neuron}}
    control: {{id: random-sign, draws: 8}}
training:
  network: small-resnet
  source_dataset: "folder:images"
  target_dataset: "folder:images"
  sources: [{{name: natural, method: natural, set: {{steps: 30}}}}]
  rows:
{rows}
"""


class Measured(NamedTuple):
    """A finished process: wall time, largest anonymous and largest whole resident memory in MiB, what it printed."""

    seconds: float
    own: float
    resident: float
    output: str

    @property
    def cells(self) -> list[str]:
        return [f"{self.seconds:.1f}", f"{self.own:.0f}", f"{self.resident:.0f}"]


def measured(*words: str, cwd: Path) -> Measured:
    began, most = time.perf_counter(), {"RssAnon": 0, "VmHWM": 0}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (cwd / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            for name, kib in re.findall(r"(RssAnon|VmHWM):\s+(\d+)", status):
                most[name] = max(most[name], int(kib))
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        output.seek(0)
        said = output.read()
    assert process.returncode == 0, said[-2000:]
    return Measured(seconds, most["RssAnon"] / 1024, most["VmHWM"] / 1024, said)


def cli(*words: str, cwd: Path) -> Measured:
    return measured("-m", "transferbench.cli", *words, cwd=cwd)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the suite and its images."""
    folder = tmp_path_factory.mktemp("scale")
    random = np.random.default_rng(0)
    for split, count in (("train", 2000), ("test", N)):
        for number in range(count):
            path = folder / "images" / split / f"class{number % 10}" / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (IMAGES, IMAGES), dtype=np.uint8)).save(path)
    rows = "\n".join(
        f"    - {{name: v{number:03d}, method: finetune, source: natural, set: {{steps: {number + 1}}}}}"
        for number in range(VICTIMS - 1)
    )
    (folder / "scale.yaml").write_text(SUITE.format(n=N, rows=rows))
    return folder


def test_dry_run(place: Path, benchmark: Any, note: Callable[..., None]) -> None:
    torch = measured("-c", "import torch", cwd=place)
    note(TITLE, WHAT, HEADER, ["import torch", "", *torch.cells, ""])
    done = benchmark.pedantic(lambda: cli("run", "scale.yaml", "--dry-run", cwd=place), rounds=1)
    jobs = int(re.search(r"^(\d+) jobs", done.output, re.M).group(1))  # type: ignore[union-attr]
    assert jobs > 12_000
    row = ["`run --dry-run`", f"{jobs:,} jobs", *done.cells, "10 s, 500 MiB"]
    note(TITLE, WHAT, HEADER, row)


def simulated(job: Job[Any]) -> JobResult:
    """A result of the size that the job's would have."""
    execution, file = Execution(1.0, 500, "simulated"), StoredFile("examples/none.safetensors", "0" * 64)
    n = int(job.images.stop or N) - job.images.start if isinstance(job, EvaluationJob) else 0
    if isinstance(job, AttackJob):
        start = job.images.start
        verdicts = tuple(
            Verdict(
                start + k, k % 2 == 0, "apgd-ce" if k % 2 == 0 else "", -(k % 2), 3, 0.0313725 * (k % 2 == 0), False
            )
            for k in range(n)
        )
        tallies = (AttackTally("apgd-ce", 1, n // 2, n // 2, n), AttackTally("apgd-t", 9, 0, n // 2, n))
        return AttackResult(verdicts, tallies, Cost(n, n, 0, n, 1.0), (), True, 0, "fooled", file, execution=execution)
    if isinstance(job, CraftJob):
        return CraftResult(8, Cost(n, n), file, execution=execution)
    if isinstance(job, JudgeJob):
        return JudgeResult((True,) * n, ((False,) * n,) * 8, Cost(checks=n), execution=execution)
    if isinstance(job, TrainJob):
        log: list[dict[str, int | float | str]] = [{"step": step, "ce": 0.5} for step in range(50)]
        return TrainResult(f"victims/{job.victim}", "0" * 64, 0.9, log, execution=execution)
    return CleanResult(9000, N, Cost(checks=N), execution=execution)


def test_store_and_status(
    place: Path, benchmark: Any, note: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    suite = suites.load("scale.yaml")
    jobs = plan(suite, suite.seeds).jobs
    milliseconds: list[float] = []
    with Store(place / "run") as store:
        store.plan(jobs)

        def finish(part: list[Job[Any]]) -> float:
            """Milliseconds per job, in the way of the scheduler: looked up, compared, marked, committed."""
            spent = 0.0
            for job in part:
                result = simulated(job)
                content = {"device": "cpu", "precision": "fp32", "victim": "0" * 64, "data": "0" * 32, "version": [1]}
                began = time.perf_counter()
                key = key_of(job, content)
                assert store.find(job, key) is None
                store.changes(job, content)
                store.mark(job, key, "running", content=content)
                store.finish(key, job, content, result)
                spent += time.perf_counter() - began
            return 1000 * spent / len(part)

        attacks = [job for job in jobs if isinstance(job, AttackJob)]
        milliseconds.append(finish(attacks[:ATTACKED]))
        finish([job for job in jobs if not isinstance(job, AttackJob)])
        finish(attacks[ATTACKED:-ATTACKED])
        milliseconds.append(finish(attacks[-ATTACKED:]))
    size = (place / "run" / "store.sqlite3").stat().st_size >> 20
    for which, spent in zip(("first", "last"), milliseconds, strict=True):
        what = f"store: each of the {which} {ATTACKED:,} attacks"
        note(TITLE, WHAT, HEADER, [what, f"of {len(jobs):,} jobs", f"{spent / 1000:.4f}", "", "", "alike"])
    done = benchmark.pedantic(lambda: cli("runs", "run", cwd=place), rounds=1)
    assert f"{len(jobs)} done" in done.output
    how = f"{len(jobs):,} jobs, store of {size} MiB"
    note(TITLE, WHAT, HEADER, ["`runs`", how, *done.cells, "2 s"])


def write_board(folder: Path, count: int) -> None:
    """Sources and victims of three seeds, every one with three chains and two crafted sets of eight tries."""
    random = np.random.default_rng(0)
    (folder / "records").mkdir(parents=True)
    chances = random.random(N)

    def bits(values: Any) -> Bits:
        return Bits(n=N, hex=pack_bits(values.tolist()))

    def chain(name: Any, robust: Any) -> ChainRecord:
        return ChainRecord(
            name=name,
            norm=name,
            eps="8/255",
            attacks=[{"id": "apgd-ce"}, {"id": "apgd-t"}],
            robust=bits(robust),
            by_attack=[{"attack": "apgd-ce", "tries": 1, "broke": 10, "standing": int(robust.sum())}],
            ties=0,
            jobs=["0" * 32] * 40,
            forwards=100,
            backwards=90,
        )

    for number in range(count):
        seed, own = number % 3, number // 3
        is_source = own < 3
        name, source = (f"src{own}-s{seed}", "") if is_source else (f"m{own:03d}-s{seed}", f"src{own % 3}-s{seed}")
        clean = random.random(N) < 0.9
        share = random.uniform(0.3, 0.7)
        robust = {
            norm: clean & (chances + random.normal(0, 0.1, N) < share + more)
            for norm, more in (("Linf", 0), ("L2", 0.05), ("L1", -0.1))
        }
        sets = [
            CraftedRecord(
                source=source,
                norm="Linf",
                eps="8/255",
                attack={"id": attack},
                flips=[bits(clean & (random.random(N) < 0.05)) for _ in range(8)],
                jobs=["0" * 32] * 40,
            )
            for attack in ("pretrained-neuron", "random-sign")
        ]
        record = Record(
            suite="scale",
            protocol="scale",
            role="source" if is_source else "victim",
            victim=name,
            method="madry" if is_source else f"m{own:03d}",
            source=source,
            network="net",
            source_dataset="cifar10",
            target_dataset="cifar10",
            seed=seed,
            n=N,
            image_shape=(3, 32, 32),
            data_fingerprint="f" * 32,
            class_counts=[N // 10] * 10,
            weights_sha256="a" * 64,
            flags=[],
            clean=bits(clean),
            clean_full=(int(clean.sum()), N),
            chains=[chain(norm, values) for norm, values in robust.items()],
            crafted=[] if is_source else sets,
            versions={},
            folded=True,
            origin=ORIGIN,
            cost={"seconds": 1.5, "train_seconds": 3.0, "hardware": "simulated"},
        )
        (folder / "records" / f"{name}.json").write_text(dump(stamped(record)))


def test_board(tmp_path: Path, benchmark: Any, note: Callable[..., None]) -> None:
    write_board(tmp_path / "board", 1000)
    done = benchmark.pedantic(lambda: cli("leaderboard", "board", "--rebuild", cwd=tmp_path), rounds=1)
    assert "Warning" not in done.output
    assert len((tmp_path / "board" / "leaderboard.csv").read_text().splitlines()) == 1 + 991
    row = ["`leaderboard --rebuild`", "1,000 records", *done.cells, "60 s"]
    note(TITLE, WHAT, HEADER, row)
    page = cli("leaderboard", "board", "--html", cwd=tmp_path)
    note(TITLE, WHAT, HEADER, ["`leaderboard --html`", "1,000 records", *page.cells, ""])

"""Wall clock of whole commands: one process against one for every core, and against the reference's own threads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transferbench.scheduling.machine import cores

COMMANDS = "The whole machine"
ABOUT_COMMANDS = (
    "Wall clock of commands as they are typed, from start to end, with `--workers 1` and with a process for every core "
    "that this process may use. `leaderboard.csv` is byte for byte the same from both."
)
COMMANDS_HEADER = ["command", "cores", "one process, s", "all, s", "all / one"]
THREADS = "Against the reference with its threads"
ABOUT_THREADS = (
    "Wall clock of `pyautoattack` with torch's default threads (APGD-CE, APGD-T, Linf) over that of "
    "`evaluate(workers=<cores>)`, on 32 photograph crops with ResNet-18's own predictions, at .25/255: most survive."
)
THREADS_HEADER = ["ours", "cores", "reference, s", "ours, s", "ratio"]
SCRIPT = """
import sys, time
import torch
from support.photographs import crops
import transferbench
from transferbench.models.victims import load

model, x = load("AA_ResNet18").model, crops()[:32]
with torch.no_grad():
    y = model(x).argmax(1)
given = eval(sys.argv[1])
began = time.perf_counter()
report = transferbench.evaluate(model, x, y, {"Linf": "1/1020"}, progress=False, **given)
print(time.perf_counter() - began, report.robust["Linf"])
"""
TESTS = Path(__file__).parent.parent


def seconds(words: list[str], folder: Path) -> float:
    folder.mkdir()
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "transferbench.cli", *words], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - began


def commands() -> list[list[str]]:
    found = [["run", "letters-to-digits"]]
    place = Path(os.environ.get("TRANSFERBENCH_DATA", "none")) / "cifar10-jpeg"
    if place.is_dir():
        words = ["eval", "--model", "AA_ResNet18", "--dataset", f"folder:{place}", "--n", "512", "--device", "cpu"]
        found.append(words)
    return found


@pytest.mark.parametrize("words", commands(), ids=lambda words: words[0])
def test_commands(words: list[str], tmp_path: Path, benchmark: Any, note: Callable[..., None]) -> None:
    def both() -> tuple[float, float]:
        return seconds([*words, "--workers", "1"], tmp_path / "one"), seconds(words, tmp_path / "all")

    one, every = benchmark.pedantic(both, rounds=1)
    tables = [next((tmp_path / name / "runs").rglob("leaderboard.csv")).read_bytes() for name in ("one", "all")]
    assert tables[0] == tables[1]
    name = " ".join("folder:cifar10-jpeg" if word.startswith("folder:") else word for word in words)
    row = [f"`{name}`", str(cores()), f"{one:.0f}", f"{every:.0f}", f"{every / one:.2f}"]
    note(COMMANDS, ABOUT_COMMANDS, COMMANDS_HEADER, row)


def test_threads(benchmark: Any, note: Callable[..., None]) -> None:
    def run(given: str, **environment: str) -> float:
        plain = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, given],
            env={**plain, "PYTHONPATH": str(TESTS), **environment},
            check=True,
            capture_output=True,
            text=True,
        )
        return float(done.stdout.split()[0])

    def measure() -> list[float]:
        workers = f'"workers": {cores()}'
        return [run('{"backend": "autoattack"}'), run(f"{{{workers}}}"), run(f'{{{workers}, "precision": "bf16"}}')]

    theirs, *ours = benchmark.pedantic(measure, rounds=1)
    for name, mine in zip(("fp32", "bf16"), ours, strict=True):
        row = [name, str(cores()), f"{theirs:.0f}", f"{mine:.0f}", f"{theirs / mine:.2f}"]
        note(THREADS, ABOUT_THREADS, THREADS_HEADER, row)

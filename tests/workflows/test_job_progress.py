"""What a run says about itself: what begins, how far it is, how long it may take, and an estimate before it begins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.tiny_suite import TINY, tiny

import transferbench
from transferbench.base.durations import duration
from transferbench.base.settings import RunSettings
from transferbench.cli import main as cli
from transferbench.jobs.attack import AttackJob
from transferbench.jobs.job import Job
from transferbench.scheduling.plan import plan
from transferbench.scheduling.scheduler import Scheduler
from transferbench.store.store import Store
from transferbench.workflows import job_progress, run_suite
from transferbench.workflows.job_progress import JobProgress
from transferbench.workflows.remaining_time import RemainingTime

SHORT = TINY.replace("n: 24", "n: 8").replace("steps: 30", "steps: 3").replace("steps: 20", "steps: 2")


def test_a_log_says_what_begins_and_ends_and_what_the_attacks_may_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = tiny(tmp_path, SHORT)
    made = plan(suite, (0,))
    monkeypatch.setattr(job_progress, "EVERY", 0.0)
    with Store(tmp_path / "out") as store, JobProgress() as progress:
        run_suite.run_suite(made, Scheduler(store, RunSettings()), progress)
    lines = capsys.readouterr().err.splitlines()
    total = len(made.jobs)
    begun = [line for line in lines if re.match(rf"\[\d+/{total}\] .*: begins, ", line)]
    ended = [line for line in lines if re.match(rf"\[\d+/{total}\] .*: [\d.]+ s", line)]
    assert len(begun) == len(ended) == total
    assert sum("left" in line for line in ended) > total / 2
    (estimate,) = [line for line in lines if line.startswith("attacks: at most")]
    assert lines.index(estimate) < next(place for place, line in enumerate(lines) if ": Linf: begins" in line)
    assert re.search(r"one takes [\d.]+ ms on letters-natural-s0 here: at most .* in one process", estimate)
    assert any(re.search(r"Linf: \d of \d examples, \d still robust", line) for line in lines)
    assert any(re.search(r"train .*: \d of 2 steps", line) for line in lines)


def test_the_estimate_is_what_survivors_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At radii at which nothing breaks every correct example goes through every try."""
    words = ["eval", "--model", "letters-madry", "--norms", "Linf,L1", "--eps", "Linf=1e-6,L1=1e-5", "--n", "20"]
    words += ["--attacks", "apgd-ce:n_iter=4:restarts=2,apgd-t:n_iter=5:targets=2", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    found = re.search(r"attacks: at most ([\d,]+) passes", capsys.readouterr().err)
    assert found is not None
    (record,) = transferbench.read_results(tmp_path / "out").records
    assert all(chain.robust == record.clean for chain in record.chains)
    spent = sum(chain.backwards for chain in record.chains)
    assert int(found.group(1).replace(",", "")) * record.clean.count == spent * 20


def test_what_is_finished_is_neither_begun_nor_estimated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--model", "letters-madry", "--norms", "Linf", "--attacks", "pgd:k=3", "--n", "16"]
    words += ["--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    first = capsys.readouterr().err
    assert "attacks: at most 64 passes" in first, "3 steps and the start, for 16 examples"
    assert "[1/1] letters-madry: Linf: begins, 16 examples" in first
    assert cli.main(words) == 0
    again = capsys.readouterr().err
    assert "begins" not in again
    assert "attacks:" not in again
    # A further norm: the finished one is not counted.
    assert cli.main([*words[:4], "Linf,L2", *words[5:]]) == 0
    assert "attacks: at most 64 passes" in capsys.readouterr().err


def test_the_reference_has_no_known_number_of_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--model", "letters-madry", "--norms", "Linf", "--backend", "autoattack", "--n", "2"]
    words += ["--attacks", "apgd-ce:n_iter=100", "--eps", "Linf=0.3", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert "not known beforehand" in capsys.readouterr().err


def test_verify_says_what_it_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for n, model in ((8, "letters-madry"), (8, "letters-natural")):
        words = ["eval", "--model", model, "--norms", "Linf", "--attacks", "pgd:k=2", "--n", str(n), "--out", str(out)]
        assert cli.main(words) == 0
    capsys.readouterr()
    assert cli.main(["verify", str(out)]) == 0
    said = capsys.readouterr()
    first, second = said.err.splitlines()
    assert first.startswith("verifying 2 records, using the CPU: ")
    assert re.fullmatch(r"\[1/2\] letters-(madry|natural) is verified, about .* left", second)
    assert len(said.out.splitlines()) == 2


def test_the_time_that_is_left_goes_by_jobs_of_the_same_sort(tmp_path: Path) -> None:
    jobs: list[Job[object]] = [job for job in plan(tiny(tmp_path), (0,)).jobs if isinstance(job, AttackJob)]
    remaining = RemainingTime()
    remaining.plan(jobs, 1)
    assert remaining.text() == ""
    kinds = {job.label.partition(": ")[2] for job in jobs}
    assert kinds == {"Linf", "L2", "L1", "pgd20_linf"}
    took = {"Linf": 100.0, "L2": 10.0, "L1": 1.0, "pgd20_linf": 0.0}
    seen: set[str] = set()
    for place, job in enumerate(jobs):
        part = job.label.partition(": ")[2]
        remaining.end(job, took[part])
        seen.add(part)
        if seen == kinds and place < len(jobs) - 1:
            left = sum(took[other.label.partition(": ")[2]] for other in jobs[place + 1 :])
            assert remaining.text() == (f"about {duration(left)} left" if left else "")
    assert remaining.text() == ""
    # Two of a minute at once take a minute, and so does one alone; what was finished before takes none.
    remaining = RemainingTime()
    remaining.plan(jobs[:5], 2)
    remaining.end(jobs[0], 60)
    remaining.end(jobs[1], 60)
    remaining.end(jobs[2], None)
    assert remaining.text() == "about 60 s left"
    remaining.end(jobs[3], None)
    assert remaining.text() == "about 60 s left"


def test_a_jobs_time_is_its_own_not_that_in_the_queue(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    jobs = [job for job in plan(tiny(tmp_path), (0,)).jobs if isinstance(job, AttackJob)][:2]
    with JobProgress() as progress:
        progress.plan(jobs, 1)
        for job in jobs:
            progress.start(job)
        for job in jobs:
            progress.end(job, 3.0)
    (first, second) = [line for line in capsys.readouterr().err.splitlines() if "begins" not in line]
    assert re.fullmatch(r"\[1/2\] .*: 3.0 s, about 3.0 s left", first)
    assert re.fullmatch(r"\[2/2\] .*: 3.0 s", second)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (8.26, "8.3 s"), (59, "59 s"), (240, "4 min"), (9000, "2.5 h"), (1e6, "12 days")],
)
def test_durations_are_one_number(seconds: float, text: str) -> None:
    assert duration(seconds) == text

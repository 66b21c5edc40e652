"""What `transferbench runs` says about a folder, also while another process writes in it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.tiny_suite import TINY, Recorder, run, tiny

from transferbench.base.errors import FaultError, InputError
from transferbench.cli.main import main
from transferbench.jobs.clean import CleanJob
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.job import Job
from transferbench.jobs.networks import PublicNetwork
from transferbench.results.records import read_all
from transferbench.store.reader import Reader
from transferbench.store.store import Store
from transferbench.workflows import run_status


class Stopping(Recorder):
    def __init__(self, after: int, how: type[BaseException] = KeyboardInterrupt) -> None:
        super().__init__()
        self.after, self.how = after, how

    def end(self, job: Job, seconds: float | None) -> None:
        super().end(job, seconds)
        if len(self.run) == self.after:
            raise self.how


def test_done_interrupted_and_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "out"

    class Looking(Stopping):
        def begin(self, job: Job, number: int, total: int) -> None:
            if len(self.run) == 4:
                states = [planned.state for planned in Reader(root).planned()]
                assert states.count("done") == 4
                assert states.count("missing") == len(states) - 4
                assert "a driver is running it" in run_status.describe(Reader(root))[-2]

    with pytest.raises(KeyboardInterrupt):
        run(tiny(tmp_path), root, Looking(5))
    assert main(["runs", str(root)]) == 0
    told = capsys.readouterr().out
    assert "5 done" in told
    assert "no driver is running it" in told
    assert told.count("missing ") >= 10
    run(tiny(tmp_path), root)
    assert main(["runs", str(root), "--verdicts", str(tmp_path / "v.csv")]) == 0
    assert "missing" not in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "v.csv").open(newline="")))
    for record in read_all(root):
        for chain in record.chains:
            mine = [row for row in rows if (row["run"], row["chain"]) == (record.victim, chain.name)]
            assert len(mine) == record.n
            assert [row["fooled"] == "False" for row in mine] == chain.robust.list()


def test_a_driver_that_died_leaves_its_job_interrupted(tmp_path: Path) -> None:
    job = CleanJob("label", PublicNetwork("x"), ImagesInput("digits", "", stop=1))
    with Store(tmp_path) as store:
        store.plan([job])
        store.mark(job, "k", "running")
        assert Reader(tmp_path).planned()[0].state == "running"
    assert Reader(tmp_path).planned()[0].state == "interrupted"


def test_a_job_that_fails_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    root, reporter = tmp_path / "out", Recorder()
    # A rate that makes the loss infinite within its 20 steps.
    text = TINY.replace("set: {steps: 20, lr: 0.02}", "set: {steps: 20, lr: 1.0e+30}")
    with pytest.raises(FaultError, match=r"train finetune-s0: the loss is .*\(and 9 more\)"):
        run(tiny(tmp_path, text), root, reporter)
    assert len(reporter.reasons) == 10
    states = {job.label: job for job in Reader(root).planned()}
    assert states["train finetune-s0"].state == "failed"
    assert "the loss is" in states["train finetune-s0"].note
    assert "what it needs has failed" in states["finetune-s0: Linf"].note
    assert states["probe-s0: Linf"].state == "done"
    assert {record.victim for record in read_all(root)} == {"letters-natural-s0", "probe-s0"}


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no store of a run here"):
        Reader(tmp_path)
    (tmp_path / "store.sqlite3").write_bytes(b"something else of more than a few bytes " * 100)
    with pytest.raises(InputError, match="left alone"):
        Reader(tmp_path)

"""train, run and read_results: the same jobs and files as the commands'."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from support.tiny_suite import TINY, tiny

import transferbench
from transferbench import suites
from transferbench.base.errors import InputError
from transferbench.cli import main as cli
from transferbench.python.run_results import RunResults
from transferbench.scheduling.plan import plan

ROOT = Path(__file__).parents[2]


def test_a_training_is_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my-probe"
    done = transferbench.train("probe", settings={"steps": 3}, out=out, progress=False)
    said = capsys.readouterr().err
    assert "taken as default: --source letters-madry --target digits" in said
    assert done.victim.id == "my-probe"
    assert done.folder == out
    assert done.log.step.max() == 2
    assert not done.reused
    assert done.validation_accuracy is not None
    again = transferbench.train("probe", settings={"steps": 3}, out=out, progress=False)
    assert again.reused
    assert again.victim.sha256 == done.victim.sha256
    assert cli.main(["train", "--plugin", "probe", "--set", "steps=3", "--out", str(out)]) == 0
    assert "it was trained before: nothing was run" in capsys.readouterr().out
    with pytest.raises(InputError, match="something else is there"):
        transferbench.train("probe", settings={"steps": 4}, out=out, progress=False)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"method": "prob"}, "probe"),
        ({"method": "probe", "settings": {"step": 3}}, "steps"),
        ({"method": "probe", "source": "letters-mad", "target": "digits"}, "letters-madry"),
        ({"method": "probe", "target": "digit"}, "digits"),
        ({"method": "probe", "source": object()}, "give the id or folder"),
        ({"method": "probe", "device": "tpu"}, "tpu"),
    ],
)
def test_a_training_of_bad_input_writes_nothing(tmp_path: Path, arguments: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        transferbench.train(out=tmp_path / "v", progress=False, **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "v").exists()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    folder = tmp_path_factory.mktemp("run")
    tiny(folder, TINY.replace("n: 24", "n: 8").replace("steps: 30", "steps: 3").replace("steps: 20", "steps: 2"))
    return transferbench.run(folder / "tiny.yaml", [0], folder / "out", progress=False)


def test_the_command_finds_the_runs_jobs_and_writes_its_bytes(
    results: RunResults, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("leaderboard.csv", "leaderboard.md", "index.html", "records/probe-s0.json")
    before = {name: (results.folder / name).read_bytes() for name in names}
    words = ["run", str(results.folder.parent / "tiny.yaml"), "--seeds", "0", "--out", str(results.folder)]
    assert cli.main(words) == 0
    jobs = len(plan(suites.load(str(results.folder.parent / "tiny.yaml")), (0,)).jobs)
    assert f"{jobs} of {jobs} jobs were done before" in capsys.readouterr().out
    assert {name: (results.folder / name).read_bytes() for name in names} == before


def test_frames_are_the_tables(results: RunResults, tmp_path: Path) -> None:
    for frame, name in ((results.rows, "leaderboard.csv"), (results.costs, "cost.csv")):
        with (results.folder / name).open() as stream:
            rows = list(csv.DictReader(stream))
        assert list(frame.columns) == list(rows[0])
        for name in frame:
            cells = ["" if pd.isna(cell) else cell for cell in frame[name]]
            for cell, text in zip(cells, (row[name] for row in rows), strict=True):
                assert (float(text) == float(cell)) if text and pd.api.types.is_number(cell) else text == str(cell)
    assert results.rows.linf_acc.dtype == float
    assert results.rows.seed.dtype == int
    victims = {record.victim for record in results.records if record.role == "victim"}
    assert set(results.rows.victim) == victims


def test_verdicts_are_those_of_the_records(results: RunResults, tmp_path: Path) -> None:
    assert cli.main(["runs", str(results.folder), "--verdicts", str(tmp_path / "v.csv")]) == 0
    frame = results.verdicts
    pd.testing.assert_frame_equal(
        frame,
        pd.read_csv(tmp_path / "v.csv", keep_default_na=False, dtype={"eps": str}),
        check_dtype=False,
        check_exact=False,
    )
    for record in results.records:
        for chain in record.chains:
            mine = frame[(frame.run == record.victim) & (frame.chain == chain.name)]
            assert (~mine.fooled).tolist() == chain.robust.list()


def test_a_board_has_rows_and_no_verdicts() -> None:
    board = transferbench.read_results(ROOT / "leaderboards" / "letters-to-digits")
    assert len(board.rows) == 60
    assert board.rows["rank"].min() == 1
    with pytest.raises(InputError, match="no store"):
        _ = board.verdicts


def test_folders_without_results_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="neither records nor"):
            transferbench.read_results(folder)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"suite": "letters-to-digit"}, "letters-to-digits"),
        ({"suite": "missing.yaml"}, "no such file"),
        ({"suite": "letters-to-digits", "seeds": []}, "seeds="),
        ({"suite": "letters-to-digits", "seeds": [0, 0]}, "twice"),
        ({"suite": "letters-to-digits", "seeds": 3}, "seeds=3"),
        ({"suite": "letters-to-digits", "n": 5000}, "ask for at most"),
        ({"suite": "letters-to-digits", "keep_examples": "some"}, "sample:N"),
        ({"suite": "letters-to-digits", "precision": "fp8"}, "bf16"),
        ({"suite": "letters-to-digits", "device": "tpu"}, "tpu"),
        ({"suite": "letters-to-digits", "workers": 0}, "workers"),
        ({"suite": "croce2021"}, "cifar10"),
    ],
)
def test_a_run_of_bad_input_writes_nothing(tmp_path: Path, arguments: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        transferbench.run(out=tmp_path / "out", progress=False, **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_public_names_are_there_without_torch() -> None:
    assert {"evaluate", "load_model", "load_dataset", "train", "run", "read_results", "Report"} <= set(
        dir(transferbench)
    )
    for name in transferbench.__all__:
        assert getattr(transferbench, name) is not None

"""docs/tutorial.md: every block of the page runs, in order, and ends at a row on a board."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support import tutorial

from transferbench.leaderboard import build
from transferbench.results.records import read_all


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, from which the page's own module is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    return tmp_path


def test_the_tutorial_compares_two_networks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = tutorial.run_blocks(before_heading="6. A row on a board")
    assert [line.split()[1] for line in commands] == [
        "doctor", "inspect", "eval", "train", "eval", "compare", "plan-n",
    ]  # fmt: skip
    assert {record.victim for run in ("mine", "robust") for record in read_all(here / "runs" / run)} == {
        "python:my_net:net",
        "my-robust",
    }
    assert "python:my_net:net  my-robust" in capsys.readouterr().out


@pytest.mark.slow
def test_the_tutorial_ends_at_a_board(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tutorial.run_blocks()
    board = here / "leaderboards" / "my-board"
    assert build.check(board) == []
    assert {record.victim for record in read_all(board)} == {"finetune-mine-s0", "robust-mine-s0"}
    # The last block prints the rows with their ranks.
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert all(line.split()[2] in ("1", "2") for line in rows)

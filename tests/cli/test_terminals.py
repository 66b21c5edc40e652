"""Results reach any terminal: narrow ones, and ones without the characters."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from support.records import record, three

from transferbench.cli import console
from transferbench.cli.summary_table import print_summary
from transferbench.results.records import dump

CLI = [sys.executable, "-m", "transferbench.cli"]
ASCII: list[dict[str, str]] = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "no_SUCH.locale"},
]


def board(folder: Path, protocol: str) -> Path:
    (folder / "records").mkdir()
    for one in three():
        text = dump(one.model_copy(update={"protocol": protocol}))
        (folder / "records" / f"{one.victim}.json").write_text(text, encoding="utf-8")
    return folder


COMMANDS = [["leaderboard", "."], ["card", "modèle.md"], ["runs", "modèle"]]
QUICK = [(ASCII[0], COMMANDS[0]), (ASCII[3], COMMANDS[1]), (ASCII[4], COMMANDS[0]), (ASCII[2], COMMANDS[2])]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        pytest.param(one, words, marks=() if (one, words) in QUICK else pytest.mark.slow)
        for one in ASCII
        for words in COMMANDS
    ],
)
def test_characters_that_the_terminal_lacks_are_escaped(
    tmp_path: Path, environment: dict[str, str], words: list[str]
) -> None:
    board(tmp_path, "modèle 模型 [red]x[/blue]")
    card = (
        "---\ntransferbench: {id: modèle, network: n, dataset: d, classes: [a, b], input_shape: [1], method: m}\n---\nè"
    )
    (tmp_path / "modèle.md").write_text(card, encoding="utf-8")
    if environment.get("PYTHONUTF8") == "0" and words[0] != "leaderboard":
        pytest.skip("such a name is no text there")
    done = subprocess.run([*CLI, *words], cwd=tmp_path, env={**os.environ, **environment}, capture_output=True)
    text = (done.stdout + done.stderr).decode("latin-1")
    assert "Traceback" not in text
    assert "internal" not in text
    assert done.returncode == (2 if words[0] == "runs" else 0), text
    assert "mod" in text


@pytest.mark.slow
def test_an_ascii_terminal_gets_ascii(tmp_path: Path) -> None:
    board(tmp_path, "modèle 模型")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*CLI, "leaderboard", "."], cwd=tmp_path, env=environment, capture_output=True)
    assert rb"mod\xe8le \u6a21\u578b" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_number_is_cut_off(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    narrow = Console(width=width, force_terminal=True, no_color=True, markup=False, highlight=False)
    print_summary(narrow, three())
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "…" not in text
    for number in ("90.00", "50.00", "55.00", "40.00", "25.00", "8.33", "62.50"):
        assert number in text
    if width >= 40:
        assert max(map(len, text.splitlines())) <= width


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(console.make_console(), [*three(), record("b-s0", method="m" * 90)])
    text = capsys.readouterr().out
    assert "m" * 90 in text
    assert sum("method" in line for line in text.splitlines()) == 1


def test_a_board_of_sources_only(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(console.make_console(), [three()[0]])
    assert "no victim" in capsys.readouterr().out


def test_the_terminals_codes_in_a_card_are_escaped(tmp_path: Path) -> None:
    card = "---\ntransferbench: {id: m, network: n, dataset: d, classes: [a, b], input_shape: [1], method: m}\n---\n"
    (tmp_path / "m.md").write_text(card + "\x1b[2J")
    done = subprocess.run([*CLI, "card", "m.md"], cwd=tmp_path, capture_output=True, text=True)
    assert r"\x1b[2J" in done.stdout

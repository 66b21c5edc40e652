"""A bar where somebody looks, lines in a log, nothing where it is switched off."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from support.nets import Small

import transferbench
from transferbench.python import chain_progress
from transferbench.scheduling import plan


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stored", [False, True])
def test_a_terminal_gets_one_bar_over_all_chains(
    small: Small, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stored: bool
) -> None:
    monkeypatch.setattr(plan, "SHARD", 16)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    threats = {"Linf": "0.06", "L2": 0.25}
    where = {"store": tmp_path / "s"} if stored else {}
    report = transferbench.evaluate(small.model, small.x, small.y, threats, "apgd-ce", 5, **where)
    shown = terminal.getvalue()
    assert "120/120" in shown.split("\r")[-1]
    assert shown.split("\r")[-1].startswith("L2: 100%")
    last = re.findall(r"(\d+) of 60 not fooled", shown)[-1]
    assert int(last) == round(60 * report.robust["L2"])
    terminal.truncate(0)
    transferbench.evaluate(small.model, small.x, small.y, threats, "pgd", 2, progress=False)
    assert terminal.getvalue().replace("\0", "") == ""


def test_a_log_file_gets_lines_over_all_shards(
    small: Small, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "SHARD", 16)
    arguments = (small.model, small.x, small.y, {"Linf": "0.06"}, "pgd", 2)
    transferbench.evaluate(*arguments)
    assert capsys.readouterr().err == "", "shorter than half a minute"
    monkeypatch.setattr(chain_progress, "EVERY", 0.0)
    for _ in range(2):
        report = transferbench.evaluate(*arguments, store=tmp_path / "s")
        lines = capsys.readouterr().err.splitlines()
        assert "\r" not in "".join(lines)
        robust = round(60 * report.robust["Linf"])
        assert lines[-1] == f"Linf: 60 attacked, {robust} of 60 not fooled", "also where a store has them all"


def test_a_notebook_is_told_from_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not chain_progress.in_notebook()
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", type("IPython", (), {"get_ipython": staticmethod(lambda: shell)}))
    assert chain_progress.in_notebook()

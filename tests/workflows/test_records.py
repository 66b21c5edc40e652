"""Where a record came from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import transferbench.cli
from transferbench.base.specifications import Keep
from transferbench.suites import load
from transferbench.workflows.records import origin


@pytest.mark.parametrize(
    ("script", "program"),
    [
        ("/some/bin/transferbench", "transferbench"),
        ("cli/__main__.py", "__main__.py"),
        ("/home/me/my_evaluation.py", "my_evaluation.py"),
    ],
)
def test_the_command_of_a_record_names_the_program_without_its_folder(
    monkeypatch: pytest.MonkeyPatch, script: str, program: str
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "run", "letters-to-digits"])
    assert origin(load("letters-to-digits"), Keep()).command == [program, "run", "letters-to-digits"]


def test_python_m_is_recorded_as_the_command_that_everybody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(Path(transferbench.cli.__file__).with_name("__main__.py")), "list"])
    assert origin(load("letters-to-digits"), Keep()).command == ["transferbench", "list"]

"""Runs the code blocks of docs/tutorial.md in their order, as a reader would."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from transferbench.cli.main import main

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"


def run_blocks(before_heading: str = "") -> list[str]:
    """Run the blocks in the current folder, all or those before a heading, and return the commands. AssertionError for
    one that does not end in 0.

    A Python or YAML block whose text before it ends in a colon and names a file is that file; other Python is executed
    in one scope.
    """
    scope: dict[str, object] = {}
    done = []
    text = TUTORIAL.read_text(encoding="utf-8")
    if before_heading:
        text, heading, _ = text.partition(f"\n## {before_heading}")
        assert heading, "the page has no such heading"
    for before, language, code in re.findall(r"((?:[^\n]+\n)*)\n```(\w+)\n(.*?)```", text, re.S):
        file = re.findall(r"`([\w-]+\.(?:py|yaml))`", before) if before.rstrip().endswith(":") else []
        if file:
            Path(file[0]).write_text(code, encoding="utf-8")
        elif language == "python":
            exec(compile(code, str(TUTORIAL), "exec"), scope)
        else:
            assert language == "sh", f"a block of {language} that names no file"
            for line in code.splitlines():
                _run(shlex.split(line))
                done.append(line)
    return done


def _run(words: list[str]) -> None:
    if words[:2] == ["mkdir", "-p"]:
        Path(words[2]).mkdir(parents=True, exist_ok=True)
        return
    assert words[0] == "transferbench"
    assert main(words[1:]) == 0, shlex.join(words)

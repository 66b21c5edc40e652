"""The structure of the package that linters do not check: top level, words, and sizes of signatures."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "transferbench"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_PARAMETERS = 7
ENTRY_POINTS = {"api.py:evaluate", "python/trainings.py:train", "python/suite_runs.py:run"}
"""The public API and the commands may have more parameters."""


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, number of parameters without self and cls) of every function in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield node.name, sum(argument.arg not in ("self", "cls") for argument in every)


def test_no_function_has_more_than_seven_parameters() -> None:
    long = {
        f"{path.relative_to(PACKAGE)}:{name}": count
        for path in FILES
        for name, count in functions(path)
        if count > MOST_PARAMETERS and not (path.parent.name == "cli" and name == "command")
    }
    assert long.keys() <= ENTRY_POINTS, long


def test_only_the_api_is_at_the_top() -> None:
    top = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert top == {"__init__.py", "api.py", "py.typed"}


@pytest.mark.parametrize(
    "pattern",
    [
        r"\bunittest\b",
        r"\b(house|rooms?|lends?|lent|whoever)\b",
        r"\.kind ==",
        r"\bspec\[[\"']|\[[\"']spec[\"']\]",
    ],
)
def test_the_package_does_not_contain(pattern: str) -> None:
    lines = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line, re.IGNORECASE)
    ]
    assert lines == []


def test_classes_of_different_packages_have_different_names() -> None:
    """Except for the parts that every plugin has."""
    places: dict[str, set[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name not in ("Method", "Params"):
                places.setdefault(node.name, set()).add(path.relative_to(PACKAGE).parts[0])
    assert {name: packages for name, packages in places.items() if len(packages) > 1} == {}

"""Every plugin by its name, read from the syntax tree: listing what exists imports nothing.

A method is a file: its id is the file's stem with `_` written `-`, its description the first line of the
docstring. A file of networks, attacks, threats, data sets or models may hold several: it lists them in a literal
`IDS = {"id": "one line"}`. Third parties add their own through the entry points `transferbench.<kind>`
(entry point name = id, value = module). A name that is taken twice is an error.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Literal

from transferbench.base.errors import InputError

Kind = Literal["methods", "networks", "attacks", "threats", "data", "models"]

_FOLDERS: dict[Kind, str] = {
    "methods": "methods",
    "networks": "models/networks",
    "attacks": "attacks",
    "threats": "threats",
    "data": "data",
    "models": "models/loaders",
}
_PACKAGE = Path(__file__).parent.parent
_ONE_PER_FILE: tuple[Kind, ...] = ("methods",)
_NOUNS: dict[Kind, str] = {
    "methods": "method",
    "networks": "network",
    "attacks": "attack",
    "threats": "threat",
    "data": "data set",
    "models": "model",
}


@dataclass(frozen=True)
class Entry:
    """A plugin's id, its one-line description, and the module that holds it (not imported yet)."""

    id: str
    description: str
    module: str

    def load(self) -> ModuleType:
        return importlib.import_module(self.module)


def _ids_of(tree: ast.Module) -> dict[str, str]:
    """The literal IDS of a file, or nothing where it has none (a helper such as attacks/lockstep.py)."""
    for node in tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        if any(isinstance(target, ast.Name) and target.id == "IDS" for target in targets):
            return {str(key): str(line) for key, line in ast.literal_eval(value).items()}
    return {}


def _summary(tree: ast.Module) -> str:
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def _own(kind: Kind) -> Iterator[Entry]:
    folder = _PACKAGE / _FOLDERS[kind]
    package = "transferbench." + _FOLDERS[kind].replace("/", ".")
    for file in sorted(folder.glob("*.py")):
        if file.stem == "__init__":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        module = f"{package}.{file.stem}"
        if kind in _ONE_PER_FILE:
            yield Entry(file.stem.replace("_", "-"), _summary(tree), module)
        else:
            for id, line in _ids_of(tree).items():
                yield Entry(id, line, module)


def _third_party(kind: Kind) -> Iterator[Entry]:
    for point in entry_points(group=f"transferbench.{kind}"):
        yield Entry(point.name, _third_party_line(point), point.module)


def _third_party_line(point: EntryPoint) -> str:
    """The plugin's own line, read from its file; its distribution's name where the file is not found."""
    if point.dist is None:
        return "third-party plugin"
    source = Path(str(point.dist.locate_file(point.module.replace(".", "/") + ".py")))
    if not source.is_file():
        return f"third-party plugin of {point.dist.name}"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return _ids_of(tree).get(point.name, _summary(tree))


@cache
def entries(kind: Kind) -> dict[str, Entry]:
    """All plugins of a kind by id, sorted. InputError when two claim one id."""
    found: dict[str, Entry] = {}
    for entry in [*_own(kind), *_third_party(kind)]:
        if entry.id in found:
            raise InputError(
                f"{_NOUNS[kind]} {entry.id!r} is claimed by {found[entry.id].module} and by {entry.module}: "
                "uninstall or rename one"
            )
        found[entry.id] = entry
    return dict(sorted(found.items()))


def literal(entry: Entry, name: str) -> dict[str, tuple[str, ...]]:
    """A literal dictionary of tuples in an entry's file, read without importing it; empty where it has none."""
    folders = {f"transferbench.{folder.replace('/', '.')}": folder for folder in _FOLDERS.values()}
    package, _, stem = entry.module.rpartition(".")
    if package not in folders:
        return {}
    tree = ast.parse((_PACKAGE / folders[package] / f"{stem}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return {str(key): tuple(value) for key, value in ast.literal_eval(node.value).items()}
    return {}


def missing(entry: Entry, root: Path) -> list[Path]:
    """Which files a data set needs below `root` are not there, by its literal NEEDS."""
    return [root / name for name in literal(entry, "NEEDS").get(entry.id, ()) if not (root / name).exists()]


def find(kind: Kind, id: str) -> Entry:
    """The plugin of that id. InputError repeats the wrong word and names the nearest or all."""
    known = entries(kind)
    if id not in known:
        raise InputError(unknown(_NOUNS[kind], id, known))
    return known[id]


def unknown(noun: str, word: str, known: Iterable[str]) -> str:
    """`unknown method 'lfw'; did you mean 'lwf'? (there are: ...)`."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {noun} {word!r}{hint} (there are: {', '.join(names) or 'none'})"

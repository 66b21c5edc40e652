"""Every plugin by its name, read from the syntax tree: listing what exists imports nothing.

A method is a file: its id is the file's stem with `_` written `-`, its description the first line of the docstring. A
literal `IDS` in it lists presets, which are further settings of the method under ids of their own. A file of networks,
attacks, threats, data sets or models may hold several plugins: it lists them in a literal `IDS = {"id": "one line"}`.
Third parties add their own through the entry points `transferbench.<kind>` (entry point name = id, value = module). A
plugin that cannot be read, or whose name is taken twice, is one line on standard error; everything else works, and
using that name is an error.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

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
_REQUIRED: dict[Kind, tuple[str, ...]] = {
    "methods": ("VERSION", "Params", "Method"),
    "networks": ("build",),
    "attacks": ("VERSION", "build"),
    "threats": (),
    "data": ("load",),
    "models": ("load",),
}
"""What a plugin's module must have."""
_LOG = logging.getLogger("transferbench")
"""Without a handler of the user's own, a warning is its line on standard error."""
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
    """A plugin's id, its one-line description, and the module that holds it (not imported yet).

    `problem` says why it cannot be used; empty for a plugin that was read.
    """

    id: str
    description: str
    module: str
    kind: Kind
    problem: str = ""

    def load(self) -> ModuleType:
        """The module, imported. InputError, naming the plugin, where it cannot be imported or lacks a part."""
        name = f"{_NOUNS[self.kind]} {self.id!r}"
        self.check()
        module = imported(self.module, name)
        lacking = [part for part in _REQUIRED[self.kind] if not hasattr(module, part)]
        if lacking:
            raise InputError(f"{name}: the plugin {self.module} has no {lacking[0]} (docs/extending.md)")
        return module

    def check(self) -> None:
        """InputError for a plugin that cannot be used."""
        if self.problem:
            raise InputError(f"{_NOUNS[self.kind]} {self.id!r}: {self.problem}")

    @property
    def is_family(self) -> bool:
        """Whether ids go on behind a colon, as the description then says: `torchvision:<name>`. A plugin of another
        package may take any id."""
        return not self.module.startswith("transferbench.") or f"{self.id}:" in self.description


def imported(module: str, name: str) -> ModuleType:
    """A module of somebody's, imported for what `name` says. InputError whatever its import raises."""
    try:
        return importlib.import_module(module)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{name}: cannot import {module} ({reason(error)})") from None


def reason(error: BaseException) -> str:
    """An exception of somebody else's code in one line, with the place of a syntax error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg}, {Path(error.filename).name} line {error.lineno}"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


class _Source(NamedTuple):
    """What the file of a plugin says without being imported."""

    summary: str
    ids: dict[str, str]


def _source(file: Path) -> _Source:
    """InputError where the file cannot be read, or is not Python."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
        return _Source((ast.get_docstring(tree) or "").partition("\n")[0], _ids_of(tree))
    except (OSError, SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise InputError(f"the plugin cannot be read ({reason(error)})") from None


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


def _own(kind: Kind) -> Iterator[Entry]:
    folder = _PACKAGE / _FOLDERS[kind]
    package = "transferbench." + _FOLDERS[kind].replace("/", ".")
    for file in sorted(folder.glob("*.py")):
        if file.stem == "__init__":
            continue
        module, id = f"{package}.{file.stem}", file.stem.replace("_", "-")
        try:
            source = _source(file)
        except InputError as error:
            yield Entry(id, "", module, kind, str(error))
            continue
        lines = {id: source.summary, **source.ids} if kind in _ONE_PER_FILE else source.ids
        yield from (Entry(id, line, module, kind) for id, line in lines.items())


def _third_party(kind: Kind) -> Iterator[Entry]:
    for point in entry_points(group=f"transferbench.{kind}"):
        try:
            module = point.module
        except AttributeError:
            yield Entry(point.name, "", point.value, kind, f"the entry point {point.value!r} names no module")
            continue
        try:
            yield Entry(point.name, _third_party_line(point), module, kind)
        except InputError as error:
            yield Entry(point.name, "", module, kind, str(error))


def _third_party_line(point: EntryPoint) -> str:
    """The plugin's own line, read from its file; its distribution's name where the file is not found."""
    if point.dist is None:
        return "third-party plugin"
    file = _third_party_file(point)
    if file is None:
        return f"third-party plugin of {point.dist.name}"
    source = _source(file)
    return source.ids.get(point.name, source.summary)


def _third_party_file(point: EntryPoint) -> Path | None:
    """The file of an entry point's module, None where it is not found."""
    if point.dist is None:
        return None
    module = Path(str(point.dist.locate_file(point.module.replace(".", "/"))))
    return next((path for path in (module.with_suffix(".py"), module / "__init__.py") if path.is_file()), None)


_WARNED: set[tuple[str, str]] = set()


@cache
def entries(kind: Kind) -> dict[str, Entry]:
    """All plugins of a kind by id, sorted; those with a `problem` are named on standard error, once."""
    found: dict[str, Entry] = {}
    for entry in [*_own(kind), *_third_party(kind)]:
        if entry.id in found:
            other = found[entry.id].module
            problem = f"claimed by {other} and by {entry.module}: uninstall or rename one"
            found[entry.id] = replace(found[entry.id], problem=problem)
        else:
            found[entry.id] = entry
    for entry in found.values():
        _warn(entry)
    return dict(sorted(found.items()))


def _warn(entry: Entry) -> None:
    """Name a plugin that cannot be used on standard error: one line for a file, whatever kinds and ids it holds."""
    if entry.problem and (entry.module, entry.problem) not in _WARNED:
        _WARNED.add((entry.module, entry.problem))
        _LOG.warning("transferbench: warning: %s %r: %s", _NOUNS[entry.kind], entry.id, entry.problem)


@cache
def literal(entry: Entry, name: str) -> dict[str, Any]:
    """A literal dictionary in an entry's file, read without importing it; empty where it has none.

    InputError where the dictionary is no literal.
    """
    file = None if entry.problem else _file_of(entry)
    if file is None:
        return {}
    tree = ast.parse(file.read_bytes(), str(file))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            try:
                return dict(ast.literal_eval(node.value))
            except (ValueError, TypeError) as error:
                raise InputError(f"{_NOUNS[entry.kind]} {entry.id!r}: {name} is no literal ({reason(error)})") from None
    return {}


@cache
def defines(entry: Entry, name: str) -> bool:
    """Whether an entry's file defines a function of that name, read without importing it."""
    file = None if entry.problem else _file_of(entry)
    if file is None:
        return False
    body = ast.parse(file.read_bytes(), str(file)).body
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in body)


def _file_of(entry: Entry) -> Path | None:
    """The file of a plugin, None where it is not found."""
    if entry.module.startswith("transferbench."):
        return _PACKAGE.parent / f"{entry.module.replace('.', '/')}.py"
    points = (point for point in entry_points(group=f"transferbench.{entry.kind}") if point.name == entry.id)
    return next((file for file in map(_third_party_file, points) if file is not None), None)


def parameters(entry: Entry) -> dict[str, str | int | float | bool]:
    """The parameters of an attack with their defaults, by the literal `PARAMETERS` of its file."""
    found = literal(entry, "PARAMETERS").get(entry.id, {})
    if not isinstance(found, dict) or not all(isinstance(value, str | int | float) for value in found.values()):
        raise InputError(
            f"{_NOUNS[entry.kind]} {entry.id!r}: PARAMETERS must be {{id: {{name: default}}}} of numbers and texts"
        )
    return found


def preset_of(entry: Entry) -> str:
    """The id of the method that an entry is a preset of, by the literal `IDS` of its file; empty for a method."""
    presets = literal(entry, "IDS")
    if entry.id not in presets:
        return ""
    alike = (other.id for other in entries(entry.kind).values() if other.module == entry.module)
    return next((id for id in alike if id not in presets), "")


def missing(entry: Entry, root: Path) -> list[Path]:
    """Which files a data set needs below `root` are not there, by its literal NEEDS."""
    return [root / name for name in literal(entry, "NEEDS").get(entry.id, ()) if not (root / name).exists()]


def find(kind: Kind, id: str) -> Entry:
    """The plugin of that id. InputError repeats the wrong word and names the nearest or all."""
    known = entries(kind)
    if not isinstance(id, str):
        raise InputError(f"{_NOUNS[kind]} {id!r} must be a name")
    if id not in known:
        raise InputError(unknown(_NOUNS[kind], id, known))
    known[id].check()
    return known[id]


def find_family(kind: Kind, id: str) -> Entry:
    """The plugin of an id with or without a colon: `torchvision:resnet18`. InputError as `find`, and for what is behind
    the colon of a plugin that takes nothing there."""
    word, colon, _ = id.partition(":")
    entry = find(kind, word)
    if colon and not entry.is_family:
        raise InputError(f"{_NOUNS[kind]} {id!r}: {word} takes nothing behind a colon; write {word}")
    return entry


def unknown(noun: str, word: str, known: Iterable[str]) -> str:
    """`unknown method 'lfw'; did you mean 'lwf'? (there are: ...)`."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names)
    # Letters that changed places come before others that are as near.
    near.sort(key=lambda name: sorted(name) != sorted(word))
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {noun} {word!r}{hint} (there are: {', '.join(names) or 'none'})"

"""The one reader of YAML: what YAML 1.1 would change or drop without a word is refused, with the line.

Suites, `--config` and the front matter of cards are read by it. Plain values, lists and mappings with text as keys are
all there is; `true` and `false` are the only words for a truth value, decimal the only notation of a number. What is no
number for YAML, such as `1e-3` and `8/255`, stays text for the schema to read.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent, NodeEvent

from transferbench.base.errors import InputError

_DEEPEST = 50
"""Levels of nesting, at most."""
_MOST_VALUES = 100_000
"""Values of a file with all of its aliases written out, at most."""
_PLAIN_BOOL = re.compile("true|True|TRUE|false|False|FALSE")
_PLAIN_INT = re.compile("[-+]?(0|[1-9][0-9]*)")
_PLAIN_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PLAIN = {"bool": _PLAIN_BOOL, "int": _PLAIN_INT, "float": _PLAIN_FLOAT}
_TAG = "tag:yaml.org,2002:"


class _Refused(yaml.MarkedYAMLError):
    """A value that the file must write in another way."""

    def __init__(self, problem: str, node: yaml.Node | yaml.Event) -> None:
        super().__init__(problem=problem, problem_mark=node.start_mark)  # type: ignore[arg-type]


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses what the module names."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._open: list[str] = []
        self._sizes: dict[int, int] = {}
        """Values below a node, aliases written out, by the node's identity."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, AliasEvent):
            if event.anchor in self._open:
                raise _Refused(f"*{event.anchor} is inside of what it names", event)
        elif isinstance(event, NodeEvent) and getattr(event, "tag", None) is not None:
            raise _Refused(f"a tag ({event.tag}): write plain values, text in quotes", event)  # type: ignore[attr-defined]
        self._depth += 1
        anchor = None if isinstance(event, AliasEvent) else getattr(event, "anchor", None)
        if anchor is not None:
            self._open.append(anchor)
        try:
            if self._depth > _DEEPEST:
                raise _Refused(f"nested more than {_DEEPEST} levels deep", event)
            node = super().compose_node(parent, index)
        finally:
            self._depth -= 1
            if anchor is not None:
                self._open.pop()
        if node is not None:
            self._measure(node)
        return node

    def _measure(self, node: yaml.Node) -> None:
        if id(node) in self._sizes:
            return
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inside = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inside = list(node.value)
        self._sizes[id(node)] = size = 1 + sum(self._sizes[id(part)] for part in inside)
        if size > _MOST_VALUES:
            raise _Refused(f"more than {_MOST_VALUES} values, with its aliases written out", node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise _Refused("not a mapping", node)
        first: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if key.tag == f"{_TAG}merge":
                name = "<<"
            elif key.tag == f"{_TAG}str":
                name = str(key.value)
            else:
                raise _Refused(f"the key {_shown(key)} is not text: write it in quotes", key)
            if name in first:
                line = first[name].start_mark.line + self.first_line
                raise _Refused(f"the key {name!r} is there twice (also in line {line})", key)
            first[name] = key
        return super().construct_mapping(node, deep)

    first_line = 1

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        # Plain scalars are the only ones that a pattern gives a type; quoted ones are text.
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.ScalarNode):
            word = str(node.value)[:40]
            if kind in ("timestamp", "value"):
                raise _Refused(f"{word} would not be read as text: write it in quotes", node)
            pattern = _PLAIN.get(kind)
            if pattern is not None and not pattern.fullmatch(node.value):
                meant = "true or false" if kind == "bool" else "a decimal number"
                raise _Refused(
                    f"{word} would be read as {_misread(kind, word)}: write {meant}, or text in quotes", node
                )
            if kind == "int" and len(node.value) > 300:
                raise _Refused("a number of more than 300 digits", node)
        return super().construct_object(node, deep)


def load(text: str, name: str, first_line: int = 1) -> Any:
    """The plain value of a YAML text, None for an empty one.

    InputError, `<name>, line 3: ...`, for what is not YAML or would be changed silently. `first_line` is the number of
    the text's first line in its file.
    """
    try:
        loader = _StrictLoader(text)
        loader.first_line = first_line
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position if isinstance(error.position, int) else 0) + first_line
        problem, at = f"the character #x{int(str(error.character)):04x} is not allowed", line
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = (mark.line if mark is not None else 0) + first_line
        problem = _problem(error, text, at - first_line)
    except (ValueError, RecursionError) as error:
        at, problem = first_line, str(error).partition("\n")[0]
    raise InputError(f"{name}, line {at}: {problem}") from None


def read(path: Path, name: str) -> Any:
    """As `load`, from a file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}, line {line}: not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return load(text, name)


def _problem(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    if isinstance(error, _Refused):
        return str(error.problem)
    if isinstance(error, ComposerError) and "single document" in str(error.context):
        return "a second document begins (---): there must be one"
    lines = text.splitlines()
    if line < len(lines) and re.match(r"[ -]*\t", lines[line]):
        return "a tab: indent with spaces"
    if isinstance(error, ConstructorError):
        return f"not plain YAML ({error.problem})"
    return f"not readable as YAML ({'; '.join(str(part) for part in (error.context, error.problem) if part)})"


def _misread(kind: str, text: str) -> str:
    """The value that YAML 1.1 makes of a plain word."""
    try:
        return str(yaml.safe_load(text))[:40].lower() if kind == "bool" else str(yaml.safe_load(text))[:40]
    except (yaml.YAMLError, ValueError):
        return "a number"


def _shown(node: yaml.Node) -> str:
    return str(node.value)[:40] if isinstance(node, yaml.ScalarNode) else "in brackets"

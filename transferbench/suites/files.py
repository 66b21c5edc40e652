"""Reads suite files: those of this package by name, others by path; errors in one line with file, key and reason."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from transferbench.base import registry, strict_yaml
from transferbench.base.errors import InputError
from transferbench.suites.schema import NamedChain, Protocol, Source, SourceOnly, Suite, SuiteRow, Training

_FOLDER = Path(__file__).parent
_MODEL_OF: dict[str, type[BaseModel]] = {
    "protocol": Protocol,
    "full": Protocol,
    "training": Training,
    "sources": Source,
    "rows": SuiteRow,
    "further": NamedChain,
    "source_only": SourceOnly,
}
"""The schema of the mappings below each key of a suite file."""


def available() -> dict[str, str]:
    """The suites of this package: name -> title, sorted."""
    paths = sorted(_FOLDER.glob("*.yaml"), key=lambda path: path.stem)
    return {path.stem: str(strict_yaml.read(path, path.name)["title"]) for path in paths}


def load(name: str) -> Suite:
    """A suite of this package by its name, or any YAML file by its path. InputError as `parse`."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else _FOLDER / f"{name}.yaml"
    if not path.is_file():
        if path.suffix and path.parent != _FOLDER:
            raise InputError(f"suite {name}: there is no such file")
        raise InputError(registry.unknown("suite", name, (p.stem for p in _FOLDER.glob("*.yaml"))))
    return parse(path)


def parse(path: Path) -> Suite:
    """Read and check a suite file. InputError with the file, the line or key and the allowed values."""
    content = strict_yaml.read(path, f"suite {path}")
    if not isinstance(content, dict):
        raise InputError(f"suite {path}: expected a mapping with the keys {', '.join(Suite.model_fields)}")
    try:
        suite = Suite.model_validate(content)
    except InputError as error:
        raise InputError(f"suite {path}: {error}") from None
    except ValidationError as error:
        raise InputError(f"suite {path}: {_problem(error)}") from None
    if suite.name != path.stem:
        raise InputError(f"suite {path}: name is {suite.name!r}, the file's name says {path.stem!r}")
    return suite


def _problem(error: ValidationError) -> str:
    """The first complaint: the key and the reason; for an unknown key with the allowed keys."""
    problems: list[Any] = error.errors(include_url=False)
    # A misspelt key also makes the right one missing: the misspelling is the more helpful message.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = sorted(_model_at(first["loc"]).model_fields)
        near = difflib.get_close_matches(str(first["loc"][-1]), allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{key}: unknown key; {hint}(allowed: {', '.join(allowed)})"
    value = first.get("input")
    suffix = f", not {value!r}" if isinstance(value, str | int | float | bool) else ""
    # pydantic's own prefix of what a validator raises; one of the whole file has no key.
    reason = first["msg"].removeprefix("Value error, ")
    return f"{key}: {reason}{suffix}" if key else reason


def _model_at(loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The schema of the mapping that holds the key at `loc`."""
    parents = [part for part in loc[:-1] if isinstance(part, str)]
    return _MODEL_OF.get(parents[-1], Suite) if parents else Suite

"""The base class of every schema of a file, and the one-line form of its validation errors."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from transferbench.base.errors import InputError


class StrictModel(BaseModel):
    """An immutable pydantic model that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=StrictModel)


def read_json(kind: type[Model], path: Path, what: str = "") -> Model:
    """The model in a JSON file. InputError with what it is, the file, the field and the reason."""
    name = f"{what} {path}".lstrip()
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: cannot be read ({error})") from None
    except (ValidationError, InputError) as error:
        raise InputError(f"{name}: {first_problem(error)}") from None


def first_problem(error: Exception) -> str:
    """The first complaint of a pydantic error in one line: `threats.Linf: unknown norm ...`."""
    if not isinstance(error, ValidationError):
        return str(error).splitlines()[0]
    problems = error.errors(include_url=False)
    field = ".".join(str(part) for part in problems[0]["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    # pydantic's own prefix of what a validator raises.
    where = f"{field}: " if field else ""
    return f"{where}{problems[0]['msg'].removeprefix('Value error, ')}{more}"

"""The base class of every schema of a file, and the one-line form of its validation errors."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError


class StrictModel(BaseModel):
    """An immutable pydantic model that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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

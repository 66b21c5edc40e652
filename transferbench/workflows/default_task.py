"""The task of `train` where none is named: what is taken for the user, as printed and recorded."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from transferbench.base import strict_yaml
from transferbench.base.errors import InputError
from transferbench.workflows.train import TrainingRequest

FILE = Path(__file__).with_suffix(".yaml")


@cache
def _task() -> dict[str, Any]:
    task: dict[str, Any] = strict_yaml.read(FILE, FILE.name)
    return task


def completed(request: TrainingRequest) -> tuple[TrainingRequest, list[str]]:
    """(the request with a target, source and settings, what was added as options of the command).

    InputError where a source or an architecture is named without the target.
    """
    if request.target:
        return request, []
    for option, given in (("--network", request.network), ("--preprocessing", request.preprocessing)):
        if given:
            raise InputError(f"{option} {given}: name the --target, too; without one, the built-in task is trained")
    task = _task()
    settings: dict[str, Any] = task["settings"].get(request.method, {})
    added = {name: value for name, value in settings.items() if name not in request.settings}
    source = request.source or task["source"]
    options = [f"--source {source}"] if request.source is None else []
    options.append(f"--target {task['target']}")
    options += [f"--set {name}={value}" for name, value in added.items()]
    return replace(request, target=task["target"], source=source, settings={**added, **request.settings}), options


def with_folder(request: TrainingRequest, out: Path | None) -> tuple[TrainingRequest, Path, list[str]]:
    """(the completed request, the victim's folder, what was added as options of the command): runs/<method> where no
    folder is named. InputError as `completed`."""
    request, added = completed(request)
    if out is not None:
        return request, out, added
    folder = Path("runs") / request.method
    return request, folder, [*added, f"--out {folder}"]

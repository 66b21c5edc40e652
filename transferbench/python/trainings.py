"""train(): one victim with a method, as the command does it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferbench.base.errors import InputError
from transferbench.base.numbers import whole_number
from transferbench.base.settings import RunSettings
from transferbench.data.few_shot import Rule
from transferbench.models import python_function, trained
from transferbench.models.victim import Victim
from transferbench.workflows import default_task
from transferbench.workflows import train as workflow
from transferbench.workflows.job_progress import job_progress

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TrainedVictim:
    """The trained network, the folder that holds it, its accuracy on the validation images as a share (None where none
    were kept apart), the log with a row per logged step, and whether it was trained before (nothing was run)."""

    victim: Victim
    folder: Path
    validation_accuracy: float | None
    log: pd.DataFrame = field(repr=False)
    reused: bool


def train(
    method: str,
    source: str | Path | None = None,
    target: str = "",
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    network: str = "",
    shots: int | None = None,
    shots_rule: Rule = "keyed",
    preprocessing: str = "",
    eval_freq: int | None = None,
    tensorboard: bool = False,
    device: str | None = None,
    threads: int = 1,
    data_dir: str | Path | None = None,
    model_dir: str | Path | None = None,
    loader_workers: int = 0,
    download: bool = False,
    fresh: bool = False,
    trust_code: bool = False,
    progress: bool = True,
) -> TrainedVictim:
    """Train one victim with a method of `transferbench list methods`, as `transferbench train` does: the same job,
    store and files, so that either continues and finds what the other has done.

    `source` is the id or folder of the model to start from, `target` the data set; without a target the built-in task
    of digits is trained, and what was taken is printed to stderr. `settings` are hyper-parameters (`{"steps": 400}`),
    `out` the victim's folder (default: runs/<method>). The further arguments are the command's options.

    Raises InputError, before anything is written, for whatever the command refuses; FaultError where training fails.
    """
    for name, value in (("source", source), ("target", target)):
        if value is not None and not isinstance(value, str | Path):
            raise InputError(f"{name}: give the id or folder, not a {type(value).__name__}: results are recorded by it")
    if trust_code:
        python_function.trust_cards()
    request = workflow.TrainingRequest(
        method,
        str(target),
        None if source is None else str(source),
        network=network,
        shots=shots,
        shots_rule=shots_rule,
        preprocessing=preprocessing,
        settings=dict(settings or {}),
        download=download,
    )
    request, folder, added = default_task.with_folder(request, None if out is None else Path(out))
    circumstances = RunSettings(
        root=folder,
        threads=whole_number("threads", threads, at_least=1),
        data_dir=None if data_dir is None else Path(data_dir),
        model_dir=None if model_dir is None else Path(model_dir),
        loader_workers=loader_workers,
        eval_freq=eval_freq,
        fresh=fresh,
    )
    workflow.check(request, circumstances)
    if added:
        print(f"taken as default: {' '.join(added)}", file=sys.stderr)
    done = workflow.run(request, circumstances, device, job_progress(progress), tensorboard)
    import pandas as pd

    share = done.result.validation_accuracy
    return TrainedVictim(trained.load(folder), folder, share, pd.DataFrame(done.result.log), done.reused)

"""The circumstances of a run: where it happens and on what, the same for all of its jobs.

None of it names what is computed: that is in the jobs' specifications. What of it decides bits (device, precision) is
part of a job's key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transferbench.base.specifications import KEEP, Keep

Precision = Literal["fp32", "bf16"]
MIN_ROWS = 16
"""The smallest batch in which a row's arithmetic on a CPU does not depend on its neighbours (engine/judge.py)."""


@dataclass(frozen=True)
class EngineOptions:
    """How a network is prepared for an evaluation.

    `min_rows`: batches are padded to at least this many rows. `search_copy`: whether attacks may search on a fast copy.
    `preflight_rows`: images that pre-flight looks at. `precision` is that of the copy on which attacks search; verdicts
    are of the model itself, in fp32 (engine/search_model.py). The defaults are those under which verdicts do not depend
    on batches; a smoke run, whose verdicts are thrown away, lowers them.
    """

    min_rows: int = MIN_ROWS
    search_copy: bool = True
    preflight_rows: int = 16
    precision: Precision = "fp32"


ENGINE = EngineOptions()


@dataclass(frozen=True)
class RunSettings:
    """`root`: the run's folder. `data_dir`, `model_dir`: folders of data sets and weights (None: `data`, `models`).

    `device`, `workers`, `gpus`: where jobs run (scheduling/machine.py): in so many processes of this machine (1: this
    process), each with the GPU of its place, if any; `place` says so for people. `batch_size`: rows in flight. `keep`:
    which end points are stored. `cluster`: the address of workers that dask started. `fresh`: run finished jobs again.
    `loader_workers`: processes that decode training images. `threads`: torch's threads in each process (None: torch's
    own number); in the key of trainings where it is not 1. `eval_freq`: epochs between two measurements of the
    robustness monitor while training
    (None: no monitor). `synthetic_data`: data sets are small generated files in the official layout.
    """

    root: Path = Path()
    device: str = "cpu"
    workers: int = 1
    gpus: tuple[str, ...] = ()
    place: str = ""
    batch_size: int | None = None
    data_dir: Path | None = None
    model_dir: Path | None = None
    keep: Keep = KEEP
    cluster: str | None = None
    fresh: bool = False
    loader_workers: int = 0
    threads: int | None = 1
    eval_freq: int | None = None
    synthetic_data: bool = False
    engine: EngineOptions = ENGINE

    @property
    def device_kind(self) -> str:
        """`cpu` or `cuda`: the part of the device that decides bits."""
        return self.device.partition(":")[0]

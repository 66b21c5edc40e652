"""Checking a run's settings before anything is loaded or created."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.settings import RunSettings
from transferbench.scheduling import machine
from transferbench.scheduling.backends import dask
from transferbench.store.reader import STORE, Reader


def check(settings: RunSettings) -> None:
    """InputError for a batch of nothing, a folder that cannot be written or is in use, a
    cluster that does not answer."""
    if settings.root != Path():
        _check_root(settings.root)
    if settings.batch_size is not None and settings.batch_size < 1:
        raise InputError(f"--batch-size {settings.batch_size}: must be at least 1")
    if settings.loader_workers < 0:
        raise InputError(f"--loader-workers {settings.loader_workers}: must be at least 0")
    if settings.cluster is not None:
        if settings.loader_workers:
            raise InputError("--loader-workers: not with --cluster, whose workers are one process each")
        dask.check(settings.cluster, settings.device)


def placed(settings: RunSettings, device: str | None, workers: int | None = None, default: str = "auto") -> RunSettings:
    """The settings with the place where jobs run, for `--device` and `--workers` as given (None: not given).

    `default` is the device where none is given. InputError for what is not here.
    """
    if settings.cluster is not None:
        if workers is not None:
            raise InputError("--workers: not with --cluster, which has its workers already")
        device = device or "cpu"
        _check_device(device, device == "auto" or not settings.cluster.startswith("local:"))
        return replace(settings, device=device, place=f"using the workers of {settings.cluster} ({device})")
    device = device or default
    _check_device(device, False)
    places = machine.choose(device, workers)
    if places.device == "cpu" and (settings.threads or 1) > 1:
        # A single training on several cores.
        places = replace(places, text=f"using the CPU: {settings.threads} threads in this process")
    return replace(settings, device=places.device, workers=places.workers, gpus=places.gpus, place=places.text)


def _check_root(root: Path) -> None:
    """The run's folder can be written, and its store, if there is one, is of this version."""
    atomic_files.check_folder(root)
    if (root / STORE).is_file() and (root / STORE).stat().st_size:
        Reader(root)


def _check_device(name: str, is_elsewhere: bool) -> None:
    """The device must be here, or, where the workers are elsewhere, one that they may have."""
    if name == "auto":
        if is_elsewhere:
            raise InputError("--device auto: not with --cluster, whose workers may be of another kind: use cpu or cuda")
        return
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name!r} is not a device: use auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and not is_elsewhere and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: {torch.cuda.device_count()} CUDA devices are visible; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: only cpu and cuda are supported")
    if device.type == "cpu" and device.index is not None:
        raise InputError(f"--device {name}: a CPU has no number: use cpu (--workers N is the number of processes)")

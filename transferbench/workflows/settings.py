"""Checking a run's settings before anything is loaded or created."""

from __future__ import annotations

from pathlib import Path

import torch

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.settings import RunSettings
from transferbench.scheduling.backends import dask
from transferbench.store.reader import STORE, Reader


def check(settings: RunSettings) -> None:
    """InputError for a device that is not here, a batch of nothing, a folder that cannot be written or is in use, a
    cluster that does not answer."""
    _check_device(settings)
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


def _check_root(root: Path) -> None:
    """The run's folder can be written, and its store, if there is one, is of this version."""
    atomic_files.check_folder(root)
    if (root / STORE).is_file() and (root / STORE).stat().st_size:
        Reader(root)


def _check_device(settings: RunSettings) -> None:
    """The device must be here; with a cluster elsewhere, it must be one that workers may have."""
    name, cluster = settings.device, settings.cluster
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name!r} is not a device: use cpu, cuda or cuda:1") from None
    is_elsewhere = cluster is not None and not cluster.startswith("local:")
    if device.type == "cuda" and not is_elsewhere and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: {torch.cuda.device_count()} CUDA devices are visible; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: only cpu and cuda are supported")

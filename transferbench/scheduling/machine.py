"""What this machine offers: the cores that this process may use, and the GPUs that nobody else is using."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from transferbench.base.errors import InputError

FREE = 0.9
"""A GPU is taken by `--device auto` when at least this share of its memory is free."""
IN_PROCESS = "using the CPU: 1 core in this process (so little work needs no others)"
_CGROUP = Path("/sys/fs/cgroup")


class Gpu(NamedTuple):
    """A visible GPU. `id` is what CUDA_VISIBLE_DEVICES takes, `number` its place among the visible ones."""

    number: int
    id: str
    name: str
    free: int
    total: int

    @property
    def is_free(self) -> bool:
        return self.free >= FREE * self.total


@dataclass(frozen=True)
class Places:
    """Where jobs run: `workers` processes on `device` (1: this process); `gpus`: the GPU of each.

    `text` says so for people, with how to change it.
    """

    device: str
    workers: int
    gpus: tuple[str, ...]
    text: str


def cores(process_group: Path = Path("/proc/self/cgroup"), root: Path = _CGROUP) -> int:
    """The number of cores that this process may use: its affinity, and the quota of its control groups."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [affinity, *_quotas(process_group, root)]
    return max(1, int(min(quotas)))


def _quotas(process_group: Path, root: Path) -> list[float]:
    """Cores by the quotas of the process's control groups and all groups above them, versions 1 and 2."""
    try:
        lines = [line.split(":", 2) for line in process_group.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        base = root if not controllers else root / controllers
        if controllers and "cpu" not in controllers.split(","):
            continue
        inside = base / path.lstrip("/")
        # Inside a container the path may be the host's: the mounted root is the container's own group.
        for folder in (inside, *inside.parents):
            if not folder.is_relative_to(base):
                break
            quota = _quota(folder)
            if quota is not None:
                found.append(quota)
    return found


def _quota(folder: Path) -> float | None:
    """The quota of a group in cores, None without one."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()[:2]
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def gpus() -> list[Gpu]:
    """The visible GPUs, with their free memory."""
    import torch

    if not torch.cuda.is_available():
        return []
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = _memory(index, str(getattr(properties, "uuid", "")))
        found.append(Gpu(index, visible[index] if index < len(visible) else str(index), properties.name, free, total))
    return found


def _memory(index: int, uuid: str) -> tuple[int, int]:
    """(free, total) bytes of a GPU, by the driver's library: CUDA itself would set memory of every GPU aside."""
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return int(memory.free), int(memory.total)
    except pynvml.NVMLError:
        # A part of a GPU (MIG) has another name there.
        return torch.cuda.mem_get_info(index)


def choose(device: str, workers: int | None, visible: Sequence[Gpu] | None = None, available: int = 0) -> Places:
    """Where jobs run for `--device` and `--workers` as given; None: as many as there are.

    `auto` is every visible GPU that is free, else every core. More workers than free GPUs share them in turn: one
    process with a small network may leave a GPU idle. `visible` and `available` (cores) are this machine's unless
    given. InputError where no GPU that was asked for is free.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: must be at least 1")
    if device == "cpu":
        return _on_cores(workers, available or cores(), "")
    found = gpus() if visible is None else list(visible)
    if device not in ("auto", "cuda"):
        # One GPU by its number: it is used whatever its memory.
        if workers is not None and workers > 1:
            raise InputError(
                f"--workers {workers}: --device {device} stays in this process; write --device cuda, and "
                "CUDA_VISIBLE_DEVICES for some of the GPUs"
            )
        name = next((gpu.name for gpu in found if device == f"cuda:{gpu.number}"), device)
        return Places(device, 1, (), f"using {device} ({name})")
    free = [gpu for gpu in found if gpu.is_free]
    busy = f"; {len(found) - len(free)} of {len(found)} GPUs are in use by others" if len(free) < len(found) else ""
    if not free and device == "auto":
        return _on_cores(workers, available or cores(), busy)
    if not free:
        raise InputError(
            f"--device cuda: none of {len(found)} GPUs has {FREE:.0%} of its memory free; --device cuda:0 takes the "
            "first as it is"
        )
    taken = free[: workers or len(free)]
    count = workers or len(taken)
    names = ", ".join(f"cuda:{gpu.number} {gpu.name}" for gpu in taken)
    shared = f", shared by {count} processes" if count > len(taken) else ""
    limit = "CUDA_VISIBLE_DEVICES or --workers N takes fewer, --device cpu none"
    text = f"using {len(taken)} GPU{'s' * (len(taken) > 1)} ({names}){shared}{busy}; {limit}"
    if count == 1:
        return Places(f"cuda:{taken[0].number}", 1, (), text)
    return Places("cuda", count, tuple(gpu.id for gpu in islice(cycle(taken), count)), text)


def _on_cores(workers: int | None, available: int, busy: str) -> Places:
    count = available if workers is None else workers
    more = f" on {available} cores" if count != available else ""
    processes = "1 core in this process" if count == 1 else f"{count} processes of one core each{more}"
    limit = "" if count == 1 else "; --workers N limits"
    return Places("cpu", count, (), f"using the CPU: {processes}{busy}{limit}")

"""What `transferbench doctor` reports: versions, extras, plugins, devices, data sets and weights of this machine.

Nothing that is missing, damaged or unreadable is an error here: it is a line of the report.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from transferbench.base import registry
from transferbench.scheduling import machine
from transferbench.workflows import installed_packages, present_files
from transferbench.workflows.installed_packages import PackageState
from transferbench.workflows.present_files import FileState

DATA_VARIABLE = "TRANSFERBENCH_DATA"
"""Read by the benchmarks of a checkout; the commands take `--data-dir`."""


@dataclass(frozen=True)
class Devices:
    """Cores that this process may use, and the GPUs that torch shows. `problem`: why GPUs could not be asked for."""

    cores: int
    gpus: tuple[dict[str, Any], ...]
    torch: str
    cuda: str
    problem: str = ""


@dataclass(frozen=True)
class Folder:
    """A folder in which files are looked for; `problem` is empty where it can be read."""

    path: str
    problem: str


@dataclass(frozen=True)
class Doctor:
    """The report. `needed` are the lines about what has to be repaired before the package works, empty in health."""

    version: str
    package: str
    python: str
    platform: str
    encodings: dict[str, str]
    packages: tuple[PackageState, ...]
    extras: dict[str, tuple[PackageState, ...]]
    broken_plugins: tuple[str, ...]
    devices: Devices
    data_folder: Folder
    benchmark_data: Folder | None
    data: tuple[FileState, ...]
    model_folder: Folder
    weights: tuple[FileState, ...]
    caches: dict[str, Folder]

    @property
    def needed(self) -> list[str]:
        """Problems of required packages, of torch and of plugins. Absent data and weights are none."""
        found = [f"{one.name}: {one.problem}" for one in self.packages if one.problem]
        found += [self.devices.problem] if self.devices.problem else []
        return [*found, *self.broken_plugins]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: every field, and `needed`."""
        return {**asdict(self), "needed": self.needed}

    @property
    def lines(self) -> Iterator[str]:
        """The report for people."""
        yield f"transferbench {self.version} in {self.package}"
        yield f"Python {self.python} on {self.platform}; " + ", ".join(f"{k} {v}" for k, v in self.encodings.items())
        yield from self._about_packages()
        yield from self._about_devices()
        yield from self._about_files()
        yield ""
        if self.needed:
            yield f"{len(self.needed)} to repair:"
            yield from (f"  {line}" for line in self.needed)
        else:
            yield "nothing to repair"

    def _about_packages(self) -> Iterator[str]:
        yield from ("", "packages")
        for one in self.packages:
            yield f"  {one.name:<18}{one.version or '-':<16}{one.needs:<12}{one.problem}".rstrip()
        yield from ("", "extras")
        for name, parts in self.extras.items():
            lacking = [one for one in parts if one.problem]
            how = f"pip install 'transferbench[{name}]' ({', '.join(one.name for one in lacking)})"
            yield f"  {name:<18}{how if lacking else 'installed'}"

    def _about_devices(self) -> Iterator[str]:
        devices = self.devices
        yield from ("", "devices", f"  {'cores':<18}{devices.cores}")
        yield f"  {'torch':<18}{devices.torch or '-'}" + (f", CUDA {devices.cuda}" if devices.cuda else "")
        for gpu in devices.gpus:
            yield f"  {'cuda:' + str(gpu['number']):<18}{gpu['name']}, {_gib(gpu['free'])} of {_gib(gpu['total'])} free"
        if not devices.gpus:
            yield f"  {'GPU':<18}{devices.problem or 'none that torch can use'}"

    def _about_files(self) -> Iterator[str]:
        yield from ("", f"data sets in {_place(self.data_folder, '--data-dir')}")
        if self.benchmark_data is not None:
            problem = self.benchmark_data.problem or "found"
            yield f"  {DATA_VARIABLE}={self.benchmark_data.path}, for the benchmarks of a checkout alone: {problem}"
        yield from (_file_line(one) for one in self.data)
        yield from ("", f"weights in {_place(self.model_folder, '--model-dir')}")
        yield from (_file_line(one) for one in self.weights)
        for name, cache in self.caches.items():
            yield f"  cache of {name}: {cache.path}" + (f": {cache.problem}" if cache.problem else "")


def examine(data_dir: Path | None = None, model_dir: Path | None = None) -> Doctor:
    """Look at everything. Raises nothing for what a machine can lack."""
    from transferbench import __version__

    variable = os.environ.get(DATA_VARIABLE, "")
    data, models = data_dir or Path("data"), model_dir or Path("models")
    return Doctor(
        version=__version__,
        package=str(Path(__file__).parent.parent),
        python=platform.python_version(),
        platform=platform.platform(),
        encodings={"files": sys.getfilesystemencoding(), "output": str(getattr(sys.stdout, "encoding", None))},
        packages=tuple(installed_packages.required()),
        extras={name: tuple(parts) for name, parts in installed_packages.extras().items()},
        broken_plugins=tuple(_broken_plugins()),
        devices=_devices(),
        data_folder=_folder(data),
        benchmark_data=_folder(Path(variable)) if variable else None,
        data=tuple(present_files.data_sets(data)),
        model_folder=_folder(models),
        weights=tuple(present_files.weights(models)),
        caches={
            name: Folder(str(path), present_files.folder_problem(path)) for name, path in present_files.caches().items()
        },
    )


def _folder(path: Path) -> Folder:
    return Folder(str(path), present_files.folder_problem(path))


def _devices() -> Devices:
    try:
        import torch

        version, cuda = str(torch.__version__), str(torch.version.cuda or "")
    except (Exception, SystemExit) as error:  # a torch that does not fit the machine raises whatever it meets
        return Devices(machine.cores(), (), "", "", f"torch cannot be imported ({registry.reason(error)})")
    try:
        gpus = tuple(gpu._asdict() for gpu in machine.gpus())
    except Exception as error:  # so does a driver
        problem = f"torch cannot use this machine's GPUs ({registry.reason(error)})"
        return Devices(machine.cores(), (), version, cuda, problem)
    return Devices(machine.cores(), gpus, version, cuda)


def _broken_plugins() -> Iterator[str]:
    for kind in get_args(registry.Kind):
        yield from (f"{kind}: {one.id}: {one.problem}" for one in registry.entries(kind).values() if one.problem)


def _place(folder: Folder, option: str) -> str:
    return f"{folder.path} ({option})" + (f": {folder.problem}" if folder.problem else "")


def _file_line(one: FileState) -> str:
    return f"  {one.id:<18} {one.state:<11}{one.detail or ', '.join(one.expected)}"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"

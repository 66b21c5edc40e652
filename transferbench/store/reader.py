"""Reading a store that may be in use: no lock, nothing is changed. `verify` and `runs` use it."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.base.results import JobResult, StoredFile, from_json
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel

SCHEMA = 2
STORE = "store.sqlite3"
"""The name of the database in a run's folder."""
R = TypeVar("R", bound=JobResult)


class Specification(NamedTuple):
    """A finished job's specification as it was stored; jobs/ writes it, this reads it."""

    values: dict[str, Any]

    @property
    def network(self) -> str | None:
        """The id of a public network; None for one that a job of the run trained."""
        return self.values.get("victim")

    @property
    def preprocessing(self) -> str:
        return str(self.values.get("preprocessing", ""))

    @property
    def start(self) -> int:
        """The position of the first example."""
        return int(self.values.get("start", 0))

    @property
    def seed(self) -> int:
        return int(self.values["seed"])

    @property
    def chain(self) -> Chain:
        return Chain.from_dict(self.values["chain"])

    @property
    def attack(self) -> AttackSpec:
        return AttackSpec.from_dict(self.values["attack"])

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel.parse(self.values["norm"], self.values["eps"])


@dataclass(frozen=True)
class FinishedJob:
    """A finished job as it was committed."""

    key: str
    name: str
    kind: str
    label: str
    specification: Specification
    content: dict[str, Any]
    values: dict[str, Any]

    def result(self, kind: type[R]) -> R:
        """The typed result. InputError where the stored values are not of that kind."""
        return typed(kind, self.values, self.key)


class PlannedJob(NamedTuple):
    """A job of the last plan. `state`: done, running, interrupted (its driver is gone), failed or missing."""

    name: str
    kind: str
    label: str
    key: str
    state: str
    note: str


class Reader:
    """The finished jobs of a folder. InputError where there is no store, or it is damaged or newer."""

    def __init__(self, root: Path) -> None:
        self.root, self._path = root, root / STORE
        if not self._path.is_file():
            raise InputError(f"{root}: there is no store of a run here ({self._path.name})")
        with closing(self._connect()) as db:
            check_schema(db, self._path)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True)

    def job(self, key: str) -> FinishedJob | None:
        """The finished job of a key, or None."""
        return next(self._jobs("WHERE key = ?", (key,)), None)

    def jobs(self, kind: str | None = None) -> list[FinishedJob]:
        """All finished jobs, or those of a kind, in the order in which they finished."""
        if kind is None:
            return list(self._jobs("ORDER BY rowid", ()))
        return list(self._jobs("WHERE kind = ? ORDER BY rowid", (kind,)))

    def _jobs(self, clause: str, values: tuple[str, ...]) -> Iterator[FinishedJob]:
        with closing(self._connect()) as db:
            columns = "key, name, kind, label, specification, content, result"
            for row in db.execute(f"SELECT {columns} FROM jobs {clause}", values):
                specification, content, result = map(json.loads, row[4:])
                key, name, kind, label = row[:4]
                yield FinishedJob(key, name, kind, label, Specification(specification), content, result)

    def planned(self) -> list[PlannedJob]:
        """The jobs of the last plan in order; empty where none was made (an evaluation through the Python API)."""
        with closing(self._connect()) as db:
            rows = db.execute("SELECT name, kind, label, key, state, note FROM plan ORDER BY position").fetchall()
        stopped = not self.has_driver()
        jobs = [PlannedJob(*row) for row in rows]
        return [job._replace(state="interrupted") if stopped and job.state == "running" else job for job in jobs]

    def has_driver(self) -> bool:
        """Whether a driver holds the folder's lock now."""
        try:
            with (self.root / ".lock").open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def examples(self, file: StoredFile) -> dict[str, Tensor]:
        """As `read_examples`."""
        return read_examples(self.root, file)


def typed(kind: type[R], values: object, key: str) -> R:
    """A stored result as its class. InputError where the stored values are not of that kind."""
    try:
        return replace(from_json(kind, values), key=key)
    except ValueError as error:
        raise InputError(f"job {key}: the store's result is damaged ({str(error).splitlines()[0]})") from None


def check_schema(db: sqlite3.Connection, path: Path) -> None:
    """InputError unless the tables are those that this version knows."""
    try:
        (found,) = db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone() or ("none",)
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path}: not a store of transferbench, or damaged ({error}): it was left alone") from None
    if found != str(SCHEMA):
        raise InputError(f"{path}: schema {found}, this version reads {SCHEMA}: it was left alone")


def read_examples(root: Path, file: StoredFile) -> dict[str, Tensor]:
    """The tensors of an example file. InputError when it is missing or its hash differs."""
    from safetensors.torch import load_file

    path = root / file.path
    if not path.is_file() or sha256_of(path) != file.sha256:
        raise InputError(f"{path}: missing or changed since it was written: the same run makes it again")
    return load_file(path)

"""Reading a store that may be in use: no lock, nothing is changed. `verify` and `runs` use it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.base.results import JobResult, StoredFile, from_json
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel

if TYPE_CHECKING:
    from torch import Tensor

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
    def dataset(self) -> str:
        """The id of the data set of the images; empty where a job has none."""
        return str(self.values.get("dataset", ""))

    @property
    def start(self) -> int:
        """The position of the first example."""
        return int(self.values.get("start", 0))

    @property
    def examples(self) -> int:
        """The number of examples that the job is about; 0 for one that is not about a range of them."""
        return int(self.values.get("stop") or 0) - self.start if "start" in self.values else 0

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
        if not os.path.isfile(self._path):
            raise InputError(f"{root}: there is no store of a run here ({self._path.name})")
        try:
            with closing(self._connect()) as db:
                check_schema(db, self._path)
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self._path}: not a store of transferbench, or damaged ({error}): it was left alone"
            ) from None

    def _connect(self) -> sqlite3.Connection:
        """A connection that only reads, also where nothing can be written.

        SQLite then cannot make the file that readers and a driver share. Without a driver's log beside it the database
        is whole and does not change; a log that a killed driver has left is read from a copy.
        """
        try:
            db = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True)
            try:
                db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except BaseException:
                db.close()
                raise
            return db
        except sqlite3.OperationalError as error:
            if os.access(self.root, os.W_OK) or not os.access(self._path, os.R_OK):
                reason = "" if os.access(self._path, os.R_OK) else ", it may not be read"
                raise InputError(f"{self._path}: the store cannot be opened ({error}{reason})") from None
        log = self._path.with_name(f"{STORE}-wal")
        if not log.exists() or not log.stat().st_size:
            return sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        return _copied(self._path, log)

    def job(self, key: str) -> FinishedJob | None:
        """The finished job of a key, or None."""
        return next(self._jobs("WHERE key = ?", (key,)), None)

    def jobs(self, kind: str | None = None) -> list[FinishedJob]:
        """All finished jobs, or those of a kind, in the order in which they finished."""
        return list(self.each(kind))

    def each(self, kind: str | None = None) -> Iterator[FinishedJob]:
        """`jobs` one by one: the results of a large run do not fit into memory together."""
        if kind is None:
            return self._jobs("ORDER BY rowid", ())
        return self._jobs("WHERE kind = ? ORDER BY rowid", (kind,))

    def specifications(self) -> Iterator[tuple[str, Specification]]:
        """(kind, specification) of every finished job; results, which are most of a store, are not read."""
        with closing(self._connect()) as db:
            for kind, specification in db.execute("SELECT kind, specification FROM jobs ORDER BY rowid"):
                yield kind, Specification(_parsed(specification, "a job"))

    def _jobs(self, clause: str, values: tuple[str, ...]) -> Iterator[FinishedJob]:
        with closing(self._connect()) as db:
            columns = "key, name, kind, label, specification, content, result"
            for row in db.execute(f"SELECT {columns} FROM jobs {clause}", values):
                key, name, kind, label = row[:4]
                specification, content, result = (_parsed(text, f"job {key}") for text in row[4:])
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
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def examples(self, file: StoredFile) -> dict[str, Tensor]:
        """As `read_examples`."""
        return read_examples(self.root, file)


def _copied(path: Path, log: Path) -> sqlite3.Connection:
    """The database with its log, in memory."""
    with tempfile.TemporaryDirectory() as folder:
        for file in (path, log):
            shutil.copyfile(file, Path(folder) / file.name)
        memory = sqlite3.connect(":memory:")
        with closing(sqlite3.connect(Path(folder) / path.name)) as db:
            db.backup(memory)
        return memory


def _parsed(text: str, job: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{job}: what the store has of it is damaged ({error})") from None


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

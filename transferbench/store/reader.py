"""Reading a store that may be in use: no lock, nothing changed. What `verify` and `runs` look at."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from transferbench.base.errors import InputError

SCHEMA = 1


@dataclass(frozen=True)
class Finished:
    """A finished job as it was committed."""

    key: str
    name: str
    kind: str
    label: str
    spec: dict[str, Any]
    content: dict[str, Any]
    result: dict[str, Any]


class Planned(NamedTuple):
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
        self.root, self._path = root, root / "store.sqlite3"
        if not self._path.is_file():
            raise InputError(f"{root}: there is no store of a run here ({self._path.name})")
        with closing(self._connect()) as db:
            check_schema(db, self._path)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True)

    def job(self, key: str) -> Finished | None:
        """The finished job of a key, or None."""
        return next(self._jobs("WHERE key = ?", (key,)), None)

    def jobs(self) -> list[Finished]:
        """All finished jobs, in the order in which they were finished."""
        return list(self._jobs("ORDER BY rowid", ()))

    def _jobs(self, clause: str, values: tuple[str, ...]) -> Iterator[Finished]:
        with closing(self._connect()) as db:
            columns = "key, name, kind, label, spec, content, result"
            for row in db.execute(f"SELECT {columns} FROM jobs {clause}", values):
                yield Finished(*row[:4], *map(json.loads, row[4:]))

    def planned(self) -> list[Planned]:
        """The jobs of the last plan in order; empty where none was made (an evaluation through the Python API)."""
        with closing(self._connect()) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'plan'").fetchone():
                return []
            rows = db.execute("SELECT name, kind, label, key, state, note FROM plan ORDER BY position").fetchall()
        stopped = not self.driven()
        found = [Planned(*row) for row in rows]
        return [job._replace(state="interrupted") if stopped and job.state == "running" else job for job in found]

    def driven(self) -> bool:
        """Whether a driver holds the folder's lock now."""
        try:
            with (self.root / ".lock").open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def examples(self, written: Mapping[str, str]) -> dict[str, Tensor]:
        """As `read_examples`."""
        return read_examples(self.root, written)


def check_schema(db: sqlite3.Connection, path: Path) -> None:
    """InputError unless the tables are those that this version knows."""
    try:
        (found,) = db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone() or ("none",)
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path}: not a store of transferbench, or damaged ({error}): it was left alone") from None
    if found != str(SCHEMA):
        raise InputError(f"{path}: schema {found}, this version reads {SCHEMA}: it was left alone")


def read_examples(root: Path, written: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of an example file. InputError when it is gone or its hash is another."""
    from safetensors.torch import load_file

    from transferbench.models.weights import sha256_of

    path = root / written["path"]
    if not path.is_file() or sha256_of(path) != written["sha256"]:
        raise InputError(f"{path}: missing or changed since it was written: the same run makes it again")
    return load_file(path)

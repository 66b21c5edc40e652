"""The store of a run: finished jobs by key in SQLite, examples beside it, one driver at a time.

A finished job is one transaction. A job's key is its name (specification and inputs' names) with the content
hashes of what it read and with whatever else decides its numbers, so a changed weight, data set, eps, seed or
attack version never meets an old result. Files are written beside, synced and renamed before the row that
speaks of them is committed. No decision is made on the clock of the wall: it is only shown.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from transferbench.base import atomic_files
from transferbench.base.errors import FaultError, InputError
from transferbench.base.specifications import content_hash
from transferbench.jobs.job import Job
from transferbench.store import reader
from transferbench.store.checkpoint_file import Checkpoint
from transferbench.store.reader import SCHEMA

_NEW = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE jobs (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, label TEXT NOT NULL,
    spec TEXT NOT NULL, content TEXT NOT NULL, result TEXT NOT NULL, seconds REAL NOT NULL, finished REAL NOT NULL
    )""",
)
# Came later, and an older version that opens the store passes over it: the schema is the same.
_PLAN = """CREATE TABLE IF NOT EXISTS plan (
    position INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, label TEXT NOT NULL,
    key TEXT NOT NULL, state TEXT NOT NULL, note TEXT NOT NULL
    )"""
_NETWORK = ("nfs", "cifs", "smb", "lustre", "beegfs", "gpfs", "ceph", "afs", "9p", "fuse")


class Store:
    """`root` holds store.sqlite3, examples/, unfinished/, victims/. Use as a context: it holds the folder's lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = atomic_files.locked(root)
        self._lock.__enter__()
        try:
            for folder in ("examples", "unfinished"):
                (root / folder).mkdir(exist_ok=True)
                atomic_files.write_bytes(root / folder / ".probe", b"")
                (root / folder / ".probe").unlink()
                for left in (root / folder).glob("*.writing"):
                    left.unlink(missing_ok=True)
            self._db = self._open(root / "store.sqlite3")
        except BaseException as error:
            self._lock.__exit__(None, None, None)
            if not isinstance(error, OSError):
                raise
            raise InputError(f"--out {root}: cannot write there ({error.strerror}): give another folder") from None

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path)
        try:
            # A driver that was killed while creating the file leaves one without tables: that is a fresh one.
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            # WAL needs memory that all readers share, which machines on a network file system do not.
            db.execute(f"PRAGMA journal_mode={'DELETE' if on_network(path) else 'WAL'}")
            db.execute("PRAGMA synchronous=FULL")
            if tables == 0:
                with db:
                    db.execute("BEGIN")
                    for table in _NEW:
                        db.execute(table)
                    db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
            reader.check_schema(db, path)
            with db:
                db.execute(_PLAN)
        except sqlite3.DatabaseError as error:
            db.close()
            if "full" in str(error) or "disk I/O" in str(error):
                raise FaultError(f"{path}: {error}: free some space, the same command goes on from there") from None
            raise InputError(f"{path}: not a store of transferbench, or damaged ({error}): it was left alone") from None
        except InputError:
            db.close()
            raise
        return db

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._lock.__exit__(None, None, None)

    def find(self, key: str) -> dict[str, Any] | None:
        """The result of a finished job, or None."""
        row = self._db.execute("SELECT result FROM jobs WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def finish(self, key: str, job: Job, content: Mapping[str, Any], result: Mapping[str, Any], seconds: float) -> None:
        """Commit a finished job: from here on it is never run again. FaultError when the disk is full."""
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key,
                    job.name,
                    job.kind,
                    job.label,
                    json.dumps(dict(job.spec), sort_keys=True),
                    json.dumps(dict(content), sort_keys=True),
                    json.dumps(dict(result), sort_keys=True),
                    seconds,
                    time.time(),
                ),
            )
            db.execute("UPDATE plan SET state = 'done', note = '' WHERE name = ?", (job.name,))
        self.checkpoint(key).remove()

    def changes(self, job: Job, content: Mapping[str, Any]) -> list[str]:
        """What distinguishes a job from the finished one that is most like it, `chain.eps: 0.4 -> 0.5`.

        Empty where no such job was finished under the same label, or all of them are other examples' jobs.
        """
        now = _flat({"spec": dict(job.spec), "content": dict(content)})
        closest: list[str] | None = None
        rows = self._db.execute(
            "SELECT spec, content FROM jobs WHERE kind = ? AND label = ? ORDER BY rowid DESC", (job.kind, job.label)
        )
        for spec, old in rows:
            before = _flat({"spec": json.loads(spec), "content": json.loads(old)})
            names = [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
            if {"start", "stop"} & set(names):
                continue
            told = [f"{name}: {_short(before.get(name))} -> {_short(now.get(name))}" for name in names]
            if closest is None or len(told) < len(closest):
                closest = told
        return closest or []

    def plan(self, jobs: Sequence[Job]) -> None:
        """Remember what is to be done, for `transferbench runs`; what was planned before is forgotten."""
        with self._writing() as db:
            db.execute("DELETE FROM plan")
            rows = [(place, job.name, job.kind, job.label, "", "missing", "") for place, job in enumerate(jobs)]
            db.executemany("INSERT INTO plan VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def mark(self, job: Job, key: str, state: str, note: str = "") -> None:
        """What has become of a planned job: `running`, `done` or `failed`, with the reason."""
        with self._writing() as db:
            db.execute("UPDATE plan SET key = ?, state = ?, note = ? WHERE name = ?", (key, state, note, job.name))

    def checkpoint(self, key: str) -> Checkpoint:
        """Where the unfinished work of a job is kept."""
        return Checkpoint(self.root / "unfinished" / key)

    def write_examples(self, key: str, tensors: dict[str, Tensor]) -> dict[str, str]:
        """examples/<key>.safetensors with these tensors; returns its relative path and sha256."""
        from safetensors.torch import save

        from transferbench.models.weights import sha256_of

        path = self.root / "examples" / f"{key}.safetensors"
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with self.room():
            atomic_files.write_bytes(path, save(whole))
        return {"path": str(path.relative_to(self.root)), "sha256": sha256_of(path)}

    def read_examples(self, written: Mapping[str, str]) -> dict[str, Tensor]:
        """The tensors of `write_examples`. InputError when the file is gone or its hash is another."""
        return reader.read_examples(self.root, written)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self.room(), self._db:
            yield self._db

    @contextmanager
    def room(self) -> Iterator[None]:
        """For whatever writes into the folder: a full disk ends the run in one line; what was committed stands.

        FaultError where nothing more can be written.
        """
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.OperationalError) and not re.search("full|disk I/O|readonly", str(error)):
                raise
            free = shutil.disk_usage(self.root).free >> 20
            raise FaultError(
                f"{self.root}: cannot write ({error}; {free} MiB are free): make room, then the same command goes on "
                "from what is finished"
            ) from None


def key_of(job: Job, content: Mapping[str, Any]) -> str:
    """The key a finished job is found by: its name, and the content hashes and settings that decide its result."""
    return content_hash(job.name, dict(content))


def on_network(path: Path, mounts: str = "/proc/self/mounts") -> bool:
    """Whether a file lies on a file system that several machines may share; False where that cannot be told."""
    try:
        lines = [line.split() for line in Path(mounts).read_text().splitlines()]
    except OSError:
        return False
    above = {str(parent) for parent in path.resolve().parents}
    holding = [(len(line[1]), line[2]) for line in lines if len(line) > 2 and line[1] in above]
    return bool(holding) and max(holding)[1].startswith(_NETWORK)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """`{"spec": {"chain": {"eps": 1}}}` -> `{"chain.eps": 1}`: leaves by their path, less the first step."""
    if isinstance(value, dict):
        inside = [_flat(part, f"{name}.{key}" if name else str(key)) for key, part in value.items()]
    elif isinstance(value, list):
        inside = [_flat(part, f"{name}[{place}]") for place, part in enumerate(value)]
    else:
        return {name.removeprefix("spec.").removeprefix("content."): value}
    return {key: leaf for part in inside for key, leaf in part.items()}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."

"""The store of a run: finished jobs by key in SQLite, examples beside it, one driver at a time.

A finished job is one transaction. A job's key is its name (specification and inputs' names) with the content
hashes of what it read and with whatever else decides its numbers, so a changed weight, data set, eps, seed or
attack version never meets an old result. Files are written beside, synced and renamed before the row that
speaks of them is committed.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from transferbench.types import InputError, Job, content_hash

SCHEMA = 1
_TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE jobs (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, label TEXT NOT NULL,
    spec TEXT NOT NULL, content TEXT NOT NULL, result TEXT NOT NULL, seconds REAL NOT NULL, finished REAL NOT NULL
    )""",
)


class Store:
    """`root` holds store.sqlite3, examples/, victims/. Use as a context: it holds the lock of the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._lock = (root / ".lock").open("w")
        except OSError as error:
            raise InputError(f"--out {root}: cannot write there ({error.strerror}): give another folder") from None
        try:
            # The kernel's lock: a killed driver leaves none behind.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InputError(
                f"--out {root}: another transferbench is writing there: wait for it or give another"
            ) from None
        self._db = self._open(root / "store.sqlite3")

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path)
        try:
            # A driver that was killed while creating the file leaves one without tables: that is a fresh one.
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            if tables == 0:
                with db:
                    db.execute("BEGIN")
                    for table in _TABLES:
                        db.execute(table)
                    db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
            (found,) = db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone() or ("none",)
        except sqlite3.DatabaseError as error:
            db.close()
            raise InputError(f"{path}: not a store of transferbench, or damaged ({error}): it was left alone") from None
        if found != str(SCHEMA):
            db.close()
            raise InputError(f"{path}: schema {found}, this version reads {SCHEMA}: it was left alone")
        return db

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._lock.close()

    def find(self, key: str) -> dict[str, Any] | None:
        """The result of a finished job, or None."""
        row = self._db.execute("SELECT result FROM jobs WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def finish(self, key: str, job: Job, content: Mapping[str, Any], result: Mapping[str, Any], seconds: float) -> None:
        """Commit a finished job: from here on it is never run again."""
        with self._db:
            self._db.execute(
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

    def write_examples(self, key: str, tensors: dict[str, Tensor]) -> dict[str, str]:
        """examples/<key>.safetensors with these tensors; returns its relative path and sha256."""
        from safetensors.torch import save_file

        from transferbench.victims.weights import sha256_of

        path = self.root / "examples" / f"{key}.safetensors"
        path.parent.mkdir(exist_ok=True)
        beside = path.with_suffix(".writing")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside)
        with beside.open("rb") as stream:
            os.fsync(stream.fileno())
        digest = sha256_of(beside)
        beside.replace(path)
        return {"path": str(path.relative_to(self.root)), "sha256": digest}

    def read_examples(self, written: Mapping[str, str]) -> dict[str, Tensor]:
        """The tensors of `write_examples`. InputError when the file is gone or its hash is another."""
        from safetensors.torch import load_file

        from transferbench.victims.weights import sha256_of

        path = self.root / written["path"]
        if not path.is_file() or sha256_of(path) != written["sha256"]:
            raise InputError(f"{path}: missing or changed since it was written: remove {self.root} and run again")
        return load_file(path)


def key_of(job: Job, content: Mapping[str, Any]) -> str:
    """The key a finished job is found by: its name, and the content hashes and settings that decide its result."""
    return content_hash(job.name, dict(content))

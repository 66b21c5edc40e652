"""The store of a run: finished jobs by key in SQLite, examples and weights beside it, one driver at a time.

A finished job is one transaction. Its key is its name with the content that decides its numbers, so that a changed
weight, data set, eps, seed or attack version never meets an old result. Files are written atomically before the row
that names them is committed. The wall clock decides nothing: it is only displayed.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from transferbench.base import atomic_files
from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import FaultError, InputError
from transferbench.base.names import file_stem
from transferbench.base.results import AttackResult, CraftResult, JobResult, QueryResult, StoredFile, to_json
from transferbench.base.specifications import content_hash
from transferbench.store import reader
from transferbench.store.checkpoint_file import CheckpointFile
from transferbench.store.reader import SCHEMA

_TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE jobs (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, label TEXT NOT NULL, specification TEXT NOT NULL,
    content TEXT NOT NULL, result TEXT NOT NULL, seconds REAL NOT NULL, finished REAL NOT NULL
    )""",
    """CREATE TABLE plan (
    position INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, label TEXT NOT NULL,
    key TEXT NOT NULL, state TEXT NOT NULL, note TEXT NOT NULL, specification TEXT NOT NULL, content TEXT NOT NULL
    )""",
)
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS plan_by_name ON plan (name)",
    "CREATE INDEX IF NOT EXISTS jobs_by_label ON jobs (kind, label)",
    "CREATE INDEX IF NOT EXISTS jobs_by_name ON jobs (name)",
)
"""Without them every finished job is looked for in all others; a store of before gets them when it is opened."""
_NETWORK = ("nfs", "cifs", "smb", "lustre", "beegfs", "gpfs", "ceph", "afs", "9p", "fuse")
E = TypeVar("E", AttackResult, CraftResult, QueryResult)


class StorableJob(Protocol):
    """What the store needs of a job."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def result_type(self) -> type[JobResult]: ...
    def specification(self) -> dict[str, Any]: ...


class Store:
    """`root` holds store.sqlite3, examples/, unfinished/, victims/. A context manager: it holds the folder's lock.

    `victims` is the folder below `root` for trained networks; empty: `root` itself is the one victim's folder.
    """

    def __init__(self, root: Path, victims: str = "victims") -> None:
        self.root, self._victims = root, victims
        with ExitStack() as stack:
            stack.enter_context(atomic_files.locked(root))
            try:
                for folder in ("examples", "unfinished"):
                    (root / folder).mkdir(exist_ok=True)
                    atomic_files.write_bytes(root / folder / ".probe", b"")
                    (root / folder / ".probe").unlink()
                    for temporary in (root / folder).glob("*.writing"):
                        temporary.unlink(missing_ok=True)
                self._db = self._open(root / reader.STORE)
            except OSError as error:
                raise InputError(f"--out {root}: cannot write there ({error.strerror}): give another folder") from None
            stack.callback(self._db.close)
            self._resources = stack.pop_all()

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        # Absolute: a path that begins with `file:` would be taken for an address.
        db = sqlite3.connect(path.absolute())
        try:
            # A driver that was killed while it created the file leaves one without tables: that is a fresh one.
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            # WAL needs memory that all readers share, which machines on a network file system do not.
            db.execute(f"PRAGMA journal_mode={'DELETE' if on_network(path) else 'WAL'}")
            db.execute("PRAGMA synchronous=FULL")
            if tables == 0:
                with db:
                    db.execute("BEGIN")
                    for table in _TABLES:
                        db.execute(table)
                    db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
            reader.check_schema(db, path)
            with db:
                for index in _INDEXES:
                    db.execute(index)
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
        self._resources.close()

    def find(self, job: StorableJob, key: str) -> JobResult | None:
        """The result of a finished job, or None. InputError where it is damaged."""
        row = self._db.execute("SELECT result FROM jobs WHERE key = ?", (key,)).fetchone()
        return None if row is None else reader.typed(job.result_type, json.loads(row[0]), key)

    def finish(self, key: str, job: StorableJob, content: Mapping[str, Any], result: JobResult) -> None:
        """Commit a finished job: from now on it is never run again. FaultError when the disk is full."""
        values = (job.specification(), dict(content), to_json(result))
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(key, job.name, job.kind, job.label),
                    *(json.dumps(value, sort_keys=True) for value in values),
                    *(result.execution.seconds, time.time()),
                ),
            )
            db.execute("UPDATE plan SET state = 'done', note = '' WHERE name = ?", (job.name,))
        self.remove_checkpoints(key)

    def finished(self) -> set[str]:
        """The names of the jobs that have a result, whatever their keys."""
        return {name for (name,) in self._db.execute("SELECT DISTINCT name FROM jobs")}

    def changes(self, job: StorableJob, content: Mapping[str, Any]) -> list[str]:
        """How a job differs from the most similar finished one of its label, as `chain.eps: 0.4 -> 0.5`.

        Empty where no such job is finished, or all of them are about other examples or another seed.
        """
        rows = self._db.execute(
            "SELECT specification, content FROM jobs WHERE kind = ? AND label = ? ORDER BY rowid DESC",
            (job.kind, job.label),
        )
        differences = [_differences(job, content, *row) for row in rows]
        return min((found for found in differences if not _is_other_work(found)), key=len, default=[])

    def differs_from_begun(self, job: StorableJob, key: str, content: Mapping[str, Any]) -> list[str] | None:
        """How a job differs from the one that was begun in this folder; None where none was, or it is this one.

        For folders that hold the work of one job (`train`).
        """
        row = self._db.execute(
            "SELECT specification, content FROM plan WHERE state IN ('running', 'done') AND key != ?", (key,)
        ).fetchone()
        return None if row is None else _differences(job, content, *row)

    def plan(self, jobs: Sequence[StorableJob]) -> None:
        """Replace the stored plan, which `transferbench runs` shows."""
        rows = [(place, job.name, job.kind, job.label, "", "missing", "", "", "") for place, job in enumerate(jobs)]
        with self._transaction() as db:
            db.execute("DELETE FROM plan")
            db.executemany("INSERT INTO plan VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def mark(
        self, job: StorableJob, key: str, state: str, note: str = "", content: Mapping[str, Any] | None = None
    ) -> None:
        """Set the state of a planned job: `running`, `done` or `failed`, with the reason."""
        values = (json.dumps(job.specification()), json.dumps(content)) if content is not None else ("", "")
        with self._transaction() as db:
            db.execute(
                "UPDATE plan SET key = ?, state = ?, note = ?, specification = ?, content = ? WHERE name = ?",
                (key, state, note, *values, job.name),
            )

    def checkpoint(self, key: str) -> CheckpointFile:
        """The checkpoint of a job's unfinished work."""
        return CheckpointFile(self.root / "unfinished" / key)

    def part_checkpoint(self, key: str, number: int, count: int) -> str:
        """The key of the checkpoint of one of `count` parts of a job."""
        return f"{key}.{number}of{count}"

    def parts_begun(self, key: str) -> int:
        """Into how many parts a job was divided of which unfinished work was saved; 1 where none was."""
        counts = [int(path.name.rpartition("of")[2]) for path in (self.root / "unfinished").glob(f"{key}.*of*")]
        return max(counts, default=1)

    def remove_checkpoints(self, key: str) -> None:
        """Drop what was saved of a job and of its parts."""
        self.checkpoint(key).remove()
        for path in (self.root / "unfinished").glob(f"{key}.*of*"):
            path.unlink(missing_ok=True)

    def victim_folder(self, name: str) -> Path:
        """The folder of a trained network."""
        return self.root / self._victims / file_stem(name) if self._victims else self.root

    def with_examples(self, result: E, key: str, tensors: dict[str, Tensor]) -> E:
        """The result, naming a new file examples/<key>.safetensors with these tensors."""
        return replace(result, examples=self.write_examples(key, tensors))

    def write_examples(self, key: str, tensors: dict[str, Tensor]) -> StoredFile:
        """Write examples/<key>.safetensors."""
        from safetensors.torch import save

        path = self.root / "examples" / f"{key}.safetensors"
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with self.writing():
            atomic_files.write_bytes(path, save(whole))
        return StoredFile(str(path.relative_to(self.root)), sha256_of(path))

    def read_examples(self, file: StoredFile) -> dict[str, Tensor]:
        """The tensors of `write_examples`. InputError when the file is missing or its hash differs."""
        return reader.read_examples(self.root, file)

    def has_examples(self, file: StoredFile) -> bool:
        """Whether `read_examples` would succeed."""
        try:
            self.read_examples(file)
        except InputError:
            return False
        return True

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self.writing(), self._db:
            yield self._db

    @contextmanager
    def writing(self) -> Iterator[None]:
        """For all writes to the folder: FaultError in one line when the disk is full; what was committed stands."""
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.OperationalError) and not re.search("full|disk I/O|readonly", str(error)):
                raise
            free = shutil.disk_usage(self.root).free >> 20
            raise FaultError(
                f"{self.root}: cannot write ({error}; {free} MiB are free): free disk space, then the same command "
                "goes on from what is finished"
            ) from None


def key_of(job: StorableJob, content: Mapping[str, Any]) -> str:
    """The key of a finished job: its name, and the content hashes and settings that decide its result."""
    return content_hash(job.name, dict(content))


def on_network(path: Path, mounts: str = "/proc/self/mounts") -> bool:
    """Whether a file lies on a file system that several machines may share; False where that is unknown."""
    try:
        lines = [line.split() for line in Path(mounts).read_text().splitlines()]
    except OSError:
        return False
    above = {str(parent) for parent in path.resolve().parents}
    holding = [(len(line[1]), line[2]) for line in lines if len(line) > 2 and line[1] in above]
    return bool(holding) and max(holding)[1].startswith(_NETWORK)


def _differences(job: StorableJob, content: Mapping[str, Any], specification: str, old: str) -> list[str]:
    now = _flat({"specification": job.specification(), "content": dict(content)})
    before = _flat({"specification": json.loads(specification), "content": json.loads(old)})
    names = [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
    return [f"{name}: {_short(before.get(name))} -> {_short(now.get(name))}" for name in names]


def _is_other_work(differences: Sequence[str]) -> bool:
    """Whether the jobs are about other examples, or belong to other seeds of a run."""
    return any(found.startswith(("start: ", "stop: ", "seed: ", "settings.seed: ")) for found in differences)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """`{"specification": {"chain": {"eps": 1}}}` -> `{"chain.eps": 1}`: leaves by their path, less the first step."""
    if isinstance(value, dict):
        inside = [_flat(part, f"{name}.{key}" if name else str(key)) for key, part in value.items()]
    elif isinstance(value, list):
        inside = [_flat(part, f"{name}[{place}]") for place, part in enumerate(value)]
    else:
        return {name.removeprefix("specification.").removeprefix("content."): value}
    return {key: leaf for part in inside for key, leaf in part.items()}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."

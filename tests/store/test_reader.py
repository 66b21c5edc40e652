"""A run that nobody may write is read like any other."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from transferbench.base.errors import InputError
from transferbench.base.results import CleanResult, Cost
from transferbench.jobs.clean import CleanJob
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.networks import PublicNetwork
from transferbench.store.reader import Reader
from transferbench.store.store import Store

JOB = CleanJob("label", PublicNetwork("x"), ImagesInput("digits", "", stop=1))
RESULT = CleanResult(3, 4, Cost(checks=4))


def as_nobody(function: Callable[[], object]) -> None:
    """Call it in a process of a user who is not root: permissions say nothing to root."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            function()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def protect(root: Path) -> None:
    """Readable by all, writable by none."""
    for folder in root.parents:
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


def finished(root: Path) -> Path:
    with Store(root) as store:
        store.plan([JOB])
        store.mark(JOB, "k", "running")
        store.finish("k", JOB, {}, RESULT)
    return root


def check(root: Path) -> None:
    reader = Reader(root)
    (job,) = reader.jobs()
    assert job.result(CleanResult).correct == 3
    assert [planned.state for planned in reader.planned()] == ["done"]
    assert not reader.has_driver()


def test_an_intact_run_without_permission_to_write(tmp_path: Path) -> None:
    root = finished(tmp_path / "run")
    protect(root)
    before = sorted(root.iterdir())
    as_nobody(lambda: check(root))
    assert sorted(root.iterdir()) == before


def test_the_log_of_a_killed_driver_is_read_too(tmp_path: Path) -> None:
    finished(tmp_path / "run")
    killed = tmp_path / "killed"
    with sqlite3.connect(tmp_path / "run" / "store.sqlite3") as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("UPDATE plan SET note = 'in the log'")
        db.commit()
        shutil.copytree(tmp_path / "run", killed)
        (killed / "store.sqlite3-shm").unlink()
    db.close()
    assert (killed / "store.sqlite3-wal").stat().st_size
    protect(killed)

    def noted() -> None:
        assert [planned.note for planned in Reader(killed).planned()] == ["in the log"]

    as_nobody(noted)


def test_a_store_that_may_not_be_read(tmp_path: Path) -> None:
    root = finished(tmp_path / "run")
    protect(root)
    (root / "store.sqlite3").chmod(0)

    def refused() -> None:
        with pytest.raises(InputError, match="may not be read"):
            Reader(root)

    as_nobody(refused)


def test_a_lock_that_may_not_be_read_is_no_driver(tmp_path: Path) -> None:
    root = finished(tmp_path / "run")
    protect(root)
    (root / ".lock").chmod(0)
    as_nobody(lambda: check(root))


@pytest.mark.parametrize("name", ["file:x", "a?mode=memory", "50%", "sp ace#"])
def test_names_that_look_like_addresses(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check(finished(Path(name)))
    assert [path.name for path in tmp_path.iterdir()] == [name]

"""Atomic writes (temporary sibling, fsync, rename), the folder lock, and hashes of files."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transferbench.base.errors import InputError


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Atomic write: `fill(temporary)` writes a sibling, which is synced and renamed; a failed one is removed.

    A reader, also after a crash, sees the old file or the new one. Two processes use different siblings.
    """
    writing = path.with_name(f"{path.name}.{os.uname().nodename}-{os.getpid()}.writing")
    try:
        fill(writing)
        with writing.open("rb") as stream:
            os.fsync(stream.fileno())
        writing.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        writing.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """The content as a file, as `write`."""
    write(path, lambda writing: writing.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """The text as a UTF-8 file, newlines as they are, as `write`."""
    write_bytes(path, text.encode())


def check_folder(folder: Path) -> None:
    """InputError where `locked` would refuse the folder. Creates nothing."""
    nearest = folder
    status: os.stat_result | None
    try:
        while not os.path.lexists(nearest) and nearest != nearest.parent:
            nearest = nearest.parent
        status = os.stat(nearest)
        os.stat(folder)
    except FileNotFoundError:
        # A link to nothing is refused like any other file that is no folder.
        status = None if nearest.is_symlink() else os.stat(nearest)
    except OSError as error:
        raise _unwritable(folder, error.strerror) from None
    if status is None or not stat.S_ISDIR(status.st_mode):
        raise _unwritable(folder, f"{nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _unwritable(folder, "no permission")
    for part in folder.parts:
        if len(os.fsencode(part)) > 255:
            raise _unwritable(folder, "the name is too long")
    _check_lock(folder)


def _check_lock(folder: Path) -> None:
    try:
        with (folder / ".lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return
    except BlockingIOError:
        raise _in_use(folder) from None
    except OSError as error:
        raise _unwritable(folder, error.strerror) from None


def _unwritable(folder: Path, why: str | None) -> InputError:
    return InputError(f"--out {folder}: cannot write there ({why}): give another folder")


def _in_use(folder: Path) -> InputError:
    return InputError(f"--out {folder}: another transferbench is writing there: wait for it or give another")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder and hold its lock within the block.

    It is the kernel's lock: a killed process leaves none behind. InputError when another process holds it, or the
    folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise _unwritable(folder, error.strerror) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _in_use(folder) from None
        yield


@contextmanager
def temporary(place: Path) -> Iterator[Path]:
    """A temporary folder in `place`, or in the nearest existing folder above it; removed after the block."""
    nearest = place
    while not nearest.exists():
        nearest = nearest.parent
    folder = Path(tempfile.mkdtemp(prefix=".download-", dir=nearest))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """64 hex digits of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

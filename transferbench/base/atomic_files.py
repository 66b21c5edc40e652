"""What is written is written beside its place and moved there whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transferbench.base.errors import InputError


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """The file that `fill` makes at the path it is given: synced, then renamed; nothing is left of a failed one.

    A reader, also after a crash, sees the old file or the new one. Two processes that write the same do not meet.
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder is made, and is nobody else's to write in until the block ends.

    The kernel's lock: a killed process leaves none behind. InputError when another holds it, or nothing can be
    written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(f"--out {folder}: cannot write there ({error.strerror}): give another folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"--out {folder}: another transferbench is writing there: wait for it or give another"
            ) from None
        yield


@contextmanager
def temporary(place: Path) -> Iterator[Path]:
    """A new folder in `place`, or in the nearest folder above it that exists; gone after the block."""
    nearest = place
    while not nearest.exists():
        nearest = nearest.parent
    made = Path(tempfile.mkdtemp(prefix=".download-", dir=nearest))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """InputError, before any work is done, when nothing can be written at the folder."""
    place = folder
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--out {folder}: cannot write at {place}: give another folder")

"""Fetching data sets: into a temporary folder, checked by hash, unpacked, moved. Nothing half-done stays."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import urllib.request
import zlib
from pathlib import Path

from transferbench.base import atomic_files
from transferbench.base.errors import InputError


def fetch_archive(url: str, md5: str, root: Path, holds: str) -> None:
    """Unpack the archive so that `root / holds` exists. InputError for a failed download or another hash."""
    with atomic_files.temporary(root) as folder:
        archive = _fetch(url, md5, folder)
        unpacked = folder / "unpacked"
        try:
            if archive.suffix == ".zip":
                shutil.unpack_archive(archive, unpacked)
            else:
                shutil.unpack_archive(archive, unpacked, filter="data")
        except (shutil.ReadError, tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
            raise InputError(f"download {url}: the archive cannot be unpacked ({error}); nothing was kept") from None
        if not (unpacked / holds).exists():
            raise InputError(f"download {url}: the archive holds no {holds}; nothing was kept")
        root.mkdir(parents=True, exist_ok=True)
        (unpacked / holds).replace(root / holds)


def fetch_file(url: str, md5: str, target: Path) -> None:
    """Bring one file to its place. InputError for a failed download or another hash."""
    with atomic_files.temporary(target.parent) as folder:
        fetched = _fetch(url, md5, folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        fetched.replace(target)


def _fetch(url: str, md5: str, folder: Path) -> Path:
    path = folder / url.rpartition("/")[2]
    try:
        with urllib.request.urlopen(url) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except OSError as error:
        raise InputError(f"download {url}: it failed ({error}); nothing was kept") from None
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != md5:
        raise InputError(f"download {url}: its md5 is {found}, expected {md5}; nothing was kept")
    return path

"""Downloads of data sets: to a temporary folder, checked by MD5, unpacked, then moved to their place."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import urllib.request
import zlib
from pathlib import Path

from transferbench.base import atomic_files
from transferbench.base.errors import InputError


def fetch_archive(url: str, md5: str, root: Path, member: str) -> None:
    """Download an archive and move its `member` into `root`. InputError for a failed download or another MD5."""
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
        if not (unpacked / member).exists():
            raise InputError(f"download {url}: the archive holds no {member}; nothing was kept")
        root.mkdir(parents=True, exist_ok=True)
        (unpacked / member).replace(root / member)


def fetch_file(url: str, md5: str, target: Path) -> None:
    """Download one file to `target`. InputError for a failed download or another MD5."""
    with atomic_files.temporary(target.parent) as folder:
        file = _fetch(url, md5, folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)


def _fetch(url: str, md5: str, folder: Path) -> Path:
    path = folder / url.rpartition("/")[2]
    try:
        with urllib.request.urlopen(url) as response, path.open("wb") as file:
            shutil.copyfileobj(response, file)
    except OSError as error:
        raise InputError(f"download {url}: it failed ({error}); nothing was kept") from None
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "md5").hexdigest()
    if digest != md5:
        raise InputError(f"download {url}: its md5 is {digest}, expected {md5}; nothing was kept")
    return path

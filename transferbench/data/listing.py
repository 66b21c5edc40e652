"""Which files and folders of a data set count: the one place that decides for every data set that lists folders.

Names that begin with a dot, and folders of thumbnails or metadata that systems write, are as if they did not exist.
Links to files and folders are followed, but not one that leads back to a folder above it, and no folder is listed
twice. Everything else that is not counted as an image is counted as left out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.base.spelling import composed
from transferbench.data import class_order

SUFFIXES = frozenset(
    (
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".webp", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico"),
    )
)
"""Suffixes of images, in any case. A fixed list: what Pillow reads differs from machine to machine."""
SYSTEM_FOLDERS = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
"""Folders beside or inside the user's that hold copies, thumbnails or metadata."""
SHOWN = 5
"""Maximum number of kinds of left-out files that a line names."""

LOOP = "link to a folder above it"

LeftOut = Counter[str]
"""What was left out: the number of entries by kind."""
Identity = tuple[int, int]
"""Device and inode of a folder: two paths of one folder have the same."""


@dataclass
class ImageFiles:
    """The images below a folder: paths relative to it in the order of text, what was left out, and all its folders."""

    paths: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)
    folders: set[Identity] = field(default_factory=set)


@dataclass
class ClassFolders:
    """The class folders of a folder: class name -> name on disk, in label order, and what was left out."""

    folders: dict[str, str]
    left_out: LeftOut


def text(left_out: LeftOut) -> str:
    """`left out: .txt 3, broken link 1`, the most frequent kinds first; empty where nothing was left out."""
    kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{kind} {count}" for kind, count in kinds[:SHOWN]]
    others = sum(count for _, count in kinds[SHOWN:])
    return f"left out: {', '.join([*parts, *([f'others {others}'] if others else [])])}" if parts else ""


def images_below(folder: Path, nested: bool = True) -> ImageFiles:
    """The images below a folder, in its sub-folders too when `nested`. InputError for what cannot be listed or named.

    Links to folders are followed after all real folders, so that a folder that is reached by both is listed under its
    own name.
    """
    found = ImageFiles()
    above = {_identity(parent) for path in (folder.absolute(), folder.resolve()) for parent in path.parents}
    links: list[Path] = []
    pending = [folder]
    while pending or links:
        place = pending.pop() if pending else links.pop(0)
        identity = _identity(place)
        if place != folder and (identity in above or (place.is_symlink() and _leads_back(place))):
            found.left_out[LOOP] += 1
            continue
        if identity in found.folders:
            found.left_out["second link to a folder"] += 1
            continue
        found.folders.add(identity)
        for entry in _entries(place):
            kind = _kind(entry)
            if kind == "folder" and nested:
                (links if entry.is_symlink() else pending).append(Path(entry.path))
            elif kind == "image":
                found.paths.append(_checked(Path(entry.path).relative_to(folder).as_posix()))
            else:
                found.left_out[kind] += 1
        links.sort()
    found.paths.sort(key=composed)
    for one, other in zip(found.paths, found.paths[1:], strict=False):
        if composed(one) == composed(other):
            raise InputError(
                f"folder {folder}: two files are called {composed(one)!r}, in two Unicode spellings: rename one of them"
            )
    return found


def class_folders(base: Path) -> ClassFolders:
    """The class folders in `base`, links to folders included. InputError where two names are one class."""
    names: dict[str, str] = {}
    left_out = LeftOut()
    for entry in _entries(base):
        kind = _kind(entry)
        if kind == "image":
            left_out["image outside the class folders"] += 1
        elif kind != "folder":
            left_out[kind] += 1
        elif entry.is_symlink() and _leads_back(Path(entry.path)):
            left_out[LOOP] += 1
        else:
            name = composed(_checked(entry.name))
            if name in names:
                raise InputError(f"{base}: two class folders are called {name!r}, in two Unicode spellings: join them")
            names[name] = entry.name
    try:
        return ClassFolders({name: names[name] for name in class_order.ordered(names)}, left_out)
    except InputError as error:
        raise InputError(f"{base}: {error}") from None


def folders_in(base: Path) -> list[str]:
    """The names of the folders in `base`, sorted, without hidden ones."""
    return [entry.name for entry in _entries(base) if _kind(entry) == "folder"]


def others_in(base: Path, names: Collection[str]) -> LeftOut:
    """What lies in `base` besides the entries of these names, as left out."""
    return LeftOut(f"{_kind(entry)} beside {'/, '.join(names)}/" for entry in _entries(base) if entry.name not in names)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder that are not hidden, in the order of text. InputError when it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            every = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be listed ({error.strerror})") from None
    return (entry for entry in every if not entry.name.startswith(".") and entry.name not in SYSTEM_FOLDERS)


def _kind(entry: os.DirEntry[str]) -> str:
    """`folder`, `image`, or the words by which an entry that is neither is counted."""
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        # A link without a target, or a circle of links.
        if entry.is_symlink() and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return "broken link"
        raise InputError(f"{entry.path}: not readable ({error.strerror})") from None
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):
        return "special file"
    suffix = Path(entry.name).suffix.lower()
    return "image" if suffix in SUFFIXES else suffix or "file without suffix"


def _leads_back(link: Path) -> bool:
    """Whether a link leads to a folder that contains it."""
    return link.parent.resolve().is_relative_to(link.resolve())


def _identity(folder: Path) -> Identity:
    try:
        status = folder.stat()
    except OSError as error:
        raise InputError(f"folder {folder}: not readable ({error.strerror})") from None
    return status.st_dev, status.st_ino


def _checked(name: str) -> str:
    """The name. InputError for bytes that are not UTF-8, which neither a hash nor a record can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"the name {name!a} is not valid UTF-8: rename it") from None
    return name

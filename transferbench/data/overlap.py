"""Removes validation images that are also test images, compared by content."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import Dataset
from transferbench.data.files import Files, sha256


def without(part: Dataset, test: Dataset) -> Dataset:
    """The examples of `part` whose file, or whose pixels, are not byte for byte those of a test example.

    InputError when no example remains.
    """
    if isinstance(part.images, Files) and isinstance(test.images, Files):
        positions = _positions_without(part.images.paths, test.images.paths)
    else:
        pixels = {image.numpy().tobytes() for image in test.pixels}
        positions = [at for at, image in enumerate(part.pixels) if image.numpy().tobytes() not in pixels]
    if not positions:
        raise InputError(f"data set {part.id}: every {part.split} image is a test image as well")
    return part if len(positions) == len(part) else part.select(positions)


def _positions_without(paths: list[Path], others: Iterable[Path]) -> list[int]:
    """The positions of the files that equal none of the others. Only files of equal size are read."""
    by_size: dict[int, list[Path]] = {}
    for path in others:
        by_size.setdefault(path.stat().st_size, []).append(path)
    digests: dict[Path, bytes] = {}

    def digest(path: Path) -> bytes:
        if path not in digests:
            digests[path] = sha256(path)
        return digests[path]

    return [
        position
        for position, path in enumerate(paths)
        if not any(digest(path) == digest(other) for other in by_size.get(path.stat().st_size, ()))
    ]

"""Validation images that are also test images: found by content, whatever their names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import Dataset
from transferbench.data.files import Files


def without(part: Dataset, test: Dataset) -> Dataset:
    """The part less the examples whose file, or whose pixels, are byte for byte among the test examples.

    InputError when none is left.
    """
    if isinstance(part.images, Files) and isinstance(test.images, Files):
        kept = _files_apart(part.images.paths, test.images.paths)
    else:
        known = {image.numpy().tobytes() for image in test.pixels}
        kept = [place for place, image in enumerate(part.pixels) if image.numpy().tobytes() not in known]
    if not kept:
        raise InputError(f"data set {part.id}: every {part.split} image is a test image as well")
    return part if len(kept) == len(part) else part.select(kept)


def _files_apart(paths: list[Path], others: Iterable[Path]) -> list[int]:
    """Only files of equal size are read."""
    by_size: dict[int, list[Path]] = {}
    for path in others:
        by_size.setdefault(path.stat().st_size, []).append(path)
    digests: dict[Path, bytes] = {}

    def digest(path: Path) -> bytes:
        if path not in digests:
            with path.open("rb") as stream:
                digests[path] = hashlib.file_digest(stream, "sha256").digest()
        return digests[path]

    return [
        place
        for place, path in enumerate(paths)
        if not any(digest(path) == digest(other) for other in by_size.get(path.stat().st_size, ()))
    ]

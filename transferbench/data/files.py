"""Image files that are decoded when they are indexed, so that memory holds a batch or a shard, not a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from transferbench.base.errors import InputError
from transferbench.data.preprocessing import Preprocessing

_HEADERS = 100_000
"""Maximum number of files whose headers are all read; of larger sets (ImageNet's training part) only the first is."""


class Files:
    """A list of image files. Indexing with int64 positions or a slice returns float32 [k, 3, H, W] in [0,1].

    InputError with the file's name when it is missing, is not an image, or differs in size without a preprocessing
    that resizes it.
    """

    def __init__(
        self, paths: Sequence[Path], preprocessing: Preprocessing, shape: tuple[int, ...] | None = None
    ) -> None:
        self.paths, self.preprocessing = list(paths), preprocessing
        self.sizes: set[tuple[int, int]] = set()
        """(width, height) of the files whose headers were read; empty where `shape` was passed."""
        self.shape = shape or self._read_headers()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: Tensor | slice) -> Tensor:
        return self._stack(self._positions(at), lambda image, _: self.preprocessing(image))

    def augmented(self, at: Tensor, keys: Tensor) -> Tensor:
        """The images at the positions with random resized crop and flip, drawn from the int64 key of each."""
        key_of = dict(zip(at.tolist(), keys.tolist(), strict=True))
        return self._stack(at.tolist(), lambda image, position: self.preprocessing.augmented(image, key_of[position]))

    def subset(self, at: Tensor) -> Files:
        """The files at the positions, not decoded."""
        return Files([self.paths[position] for position in at.tolist()], self.preprocessing, self.shape)

    def joined(self, other: Files) -> Files:
        """These files, then those of another list with the same preprocessing and shape."""
        return Files([*self.paths, *other.paths], self.preprocessing, self.shape)

    def digest(self) -> bytes:
        """The sha256 over the preprocessing and every file's content in order."""
        whole = hashlib.sha256(self.preprocessing.text.encode())
        for path in self.paths:
            whole.update(sha256(path))
        return whole.digest()

    def _positions(self, at: Tensor | slice) -> list[int]:
        return list(range(len(self)))[at] if isinstance(at, slice) else at.tolist()

    def _stack(self, positions: list[int], transform: Callable[[Image.Image, int], Tensor]) -> Tensor:
        """[k, 3, H, W]: `transform(image, position)` of the files at the positions."""
        images = []
        for position in positions:
            pixels = transform(_open(self.paths[position]), position)
            if tuple(pixels.shape) != self.shape:
                raise InputError(f"image {self.paths[position]}: its size is {tuple(pixels.shape)}, not {self.shape}")
            images.append(pixels)
        return torch.stack(images) if images else torch.empty(0, *self.shape)

    def _read_headers(self) -> tuple[int, ...]:
        """[3, H, W] from the files' headers. InputError for a file that is not an image or differs in size."""
        sizes: dict[tuple[int, int], Path] = {}
        for path in self.paths if len(self.paths) <= _HEADERS else self.paths[:1]:
            sizes.setdefault(_size(path), path)
        self.sizes = set(sizes)
        side = self.preprocessing.side
        if side is not None:
            return (3, side, side)
        if len(sizes) > 1:
            (first, _), (other, path) = list(sizes.items())[:2]
            raise InputError(
                f"images differ in size ({first[0]}x{first[1]} and {other[0]}x{other[1]}: {path}): bring them to one, "
                "or use a model that names how it resizes them"
            )
        (width, height) = next(iter(sizes), (0, 0))
        return (3, height, width)


def sha256(path: Path) -> bytes:
    """The sha256 of a file's content. InputError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise InputError(f"image {path}: not readable ({error.strerror})") from None


def _size(path: Path) -> tuple[int, int]:
    with _reading(path), Image.open(path) as image:
        return image.size


def _open(path: Path) -> Image.Image:
    """The file as 8-bit RGB. Grey, palette and CMYK are converted, 16-bit grey is scaled, transparency is dropped.

    A photograph is not turned as its EXIF orientation says: torchvision, with which public models are trained and
    measured, does not turn it either.
    """
    with _reading(path), Image.open(path) as image:
        if image.mode.startswith("I"):
            # Pillow's own conversion clips every value above 255 to white.
            deep = np.asarray(image, dtype=np.float64)
            if deep.min() < 0 or deep.max() > 65_535:
                raise InputError(f"image {path}: pixels are integers of more than 16 bits, their scale is unknown")
            return Image.fromarray((deep / 257).round().astype(np.uint8)).convert("RGB")
        if image.mode == "F":
            raise InputError(f"image {path}: pixels are floating-point numbers, their scale is unknown")
        return image.convert("RGB")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns whatever Pillow raises for a damaged, unreadable or oversized file into one line that names the file."""
    try:
        yield
    except InputError:
        raise
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise InputError(f"image {path}: over {limit} megapixels, which Pillow does not read: shrink it") from None
    except UnidentifiedImageError:
        raise InputError(f"image {path}: not readable (no image, or a format that Pillow cannot read here)") from None
    except Exception as error:
        # Pillow's decoders raise whatever their parsing meets: OSError, SyntaxError, struct.error, IndexError, ...
        text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"image {path}: not readable ({text})") from None

"""Image files that cannot be read: one line that names the file, whatever Pillow raises."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transferbench.base.errors import InputError
from transferbench.data.files import Files
from transferbench.data.preprocessing import Preprocessing

NONE = Preprocessing.parse("")


def read(path: Path) -> torch.Tensor:
    return Files([path], NONE)[torch.tensor([0])]


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_an_image_of_too_many_megapixels_is_named(tmp_path: Path) -> None:
    path = tmp_path / "poster.png"
    path.write_bytes(png_header(14_000, 14_000))
    with pytest.raises(InputError, match=r"poster\.png: over 178 megapixels, which Pillow does not read"):
        read(path)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError(), struct.error("unpack")])
@pytest.mark.parametrize("late", [False, True], ids=["header", "pixels"])
def test_whatever_is_raised_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, late: bool
) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (4, 4)).save(path)

    def fail(*_: object, **__: object) -> None:
        raise error

    files = Files([path], NONE)
    monkeypatch.setattr(Image.Image if late else Image, "convert" if late else "open", fail)
    with pytest.raises(InputError, match=r"image .*x\.png: not readable \(") as caught:
        _ = files[torch.tensor([0])] if late else Files([path], NONE)
    assert "\n" not in str(caught.value)


def test_a_file_that_disappears_or_becomes_a_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (4, 4)).save(path)
    files = Files([path], NONE)
    path.unlink()
    for use in (files.digest, lambda: files[torch.tensor([0])]):
        with pytest.raises(InputError, match=r"x\.png: not readable \(No such file"):
            use()
    path.mkdir()
    with pytest.raises(InputError, match=r"x\.png: not readable \(Is a directory"):
        files.digest()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "JPEG2000"])
def test_damaged_files_never_end_in_another_exception(tmp_path: Path, format: str) -> None:
    rng = np.random.default_rng(7)
    whole = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(whole, format=format)
    content = whole.getvalue()
    path, messages = tmp_path / "x.img", []
    for _ in range(60):
        damaged = bytearray(content[: int(rng.integers(1, len(content) + 1))])
        for at in rng.integers(0, len(damaged), 3):
            damaged[at] = int(rng.integers(0, 256))
        path.write_bytes(damaged)
        try:
            read(path)
        except InputError as error:
            messages.append(str(error))
    assert messages
    assert all(str(path) in message and "\n" not in message for message in messages)


def test_integers_of_unknown_scale_are_refused_and_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 70_000, dtype=np.int32)).save(tmp_path / "deep.tiff")
    with pytest.raises(InputError, match="more than 16 bits, their scale is unknown"):
        read(tmp_path / "deep.tiff")
    Image.fromarray(np.full((4, 4), 32_896, dtype=np.uint16)).save(tmp_path / "grey.png")
    assert torch.equal(read(tmp_path / "grey.png"), torch.full((1, 3, 4, 4), 128 / 255))

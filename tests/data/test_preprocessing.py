"""Preprocessing against torchvision's own pipelines, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import InterpolationMode

from transferbench.base.errors import InputError
from transferbench.data.files import Files
from transferbench.data.preprocessing import Preprocessing

BICUBIC = InterpolationMode.BICUBIC
THEIRS: dict[str, list[Any]] = {
    "": [],
    "Res256Crop224": [transforms.Resize(256), transforms.CenterCrop(224)],
    "BicubicRes256Crop224": [transforms.Resize(256, interpolation=BICUBIC), transforms.CenterCrop(224)],
    "BicubicRes248Crop224": [transforms.Resize(248, interpolation=BICUBIC), transforms.CenterCrop(224)],
    "BicubicRes224Crop224": [transforms.Resize(224, interpolation=BICUBIC), transforms.CenterCrop(224)],
    "Res224Crop224": [transforms.Resize(224), transforms.CenterCrop(224)],
    "Res224": [transforms.Resize([224, 224])],
    "Crop288": [transforms.CenterCrop(288)],
    "Res37Crop32": [transforms.Resize(37), transforms.CenterCrop(32)],
    # A crop that is larger than what it is cut from.
    "Res20Crop33": [transforms.Resize(20), transforms.CenterCrop(33)],
}


def photo(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))


def wanted(text: str, image: Image.Image) -> torch.Tensor:
    pixels: torch.Tensor = transforms.Compose([*THEIRS[text], transforms.ToTensor()])(image)
    return pixels


@pytest.mark.parametrize("text", THEIRS)
@pytest.mark.parametrize(
    "size", [(300, 420), (333, 290), (500, 375), (224, 224), (256, 300), (287, 285), (283, 400), (31, 17), (1, 9)]
)
def test_pixels_are_torchvisions(text: str, size: tuple[int, int]) -> None:
    image = photo(*size)
    assert torch.equal(Preprocessing.parse(text)(image), wanted(text, image))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(["Res37Crop32", "Res20Crop33", "Crop288"]))
def test_pixels_are_torchvisions_at_any_size(width: int, height: int, text: str) -> None:
    image = photo(width, height)
    assert torch.equal(Preprocessing.parse(text)(image), wanted(text, image))


def coloured(mode: str) -> Image.Image:
    """An image of that mode whose pixels differ."""
    image = photo(61, 47)
    if mode == "P":
        return image.quantize(17)
    if mode == "PA":
        return image.quantize(17).convert("PA")
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(np.arange(61 * 47, dtype=np.uint32).astype(np.uint8).reshape(47, 61)))
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *[(mode, ".png") for mode in ("L", "1", "LA", "P", "RGBA", "RGB")],
        *[(mode, ".jpg") for mode in ("L", "CMYK", "YCbCr")],
        *[(mode, ".tiff") for mode in ("CMYK", "LAB", "P", "RGBA")],
        ("P", ".gif"),
        ("RGBA", ".webp"),
    ],
)
@pytest.mark.parametrize("text", ["BicubicRes248Crop224", "Crop288", "Res37Crop32"])
def test_files_of_every_mode_are_torchvisions(tmp_path: Path, mode: str, suffix: str, text: str) -> None:
    path = tmp_path / f"x{suffix}"
    coloured(mode).save(path)
    own = Files([path], Preprocessing.parse(text))[torch.tensor([0])][0]
    assert torch.equal(own, wanted(text, pil_loader(str(path))))


def test_a_transparent_colour_is_dropped_as_in_torchvision(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    coloured("P").save(path, transparency=0)
    own = Files([path], Preprocessing.parse("Res37Crop32"))[torch.tensor([0])][0]
    assert torch.equal(own, wanted("Res37Crop32", pil_loader(str(path))))


def test_words_that_are_no_preprocessing() -> None:
    for text in ("Res", "res256", "Crop224Res256", "Bicubic"):
        with pytest.raises(InputError, match="write it as"):
            Preprocessing.parse(text)

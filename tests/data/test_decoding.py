"""Images decoded ahead: those that are asked for, in order, each once, and a broken one raises where it is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.data import Dataset, decoding
from transferbench.data.decoding import Ahead
from transferbench.jobs.inputs import ImagesInput


@pytest.fixture
def images(tmp_path: Path) -> Dataset:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for number in range(5):
                Image.new("RGB", (8, 8), (40 * number, 10, 20)).save(folder / f"{number}.png")
    return data.load(f"folder:{tmp_path}", "test")


@pytest.fixture
def ahead(device: str, monkeypatch: pytest.MonkeyPatch) -> Ahead:
    """With the thread, also where there is no GPU."""
    if device != "cpu":
        return Ahead(device)
    monkeypatch.setattr(decoding, "pinned", lambda part: part.on("cpu"))
    made = Ahead("cuda")
    made.device = "cpu"
    return made


def test_parts_are_those_of_the_data_set(images: Dataset, ahead: Ahead) -> None:
    assert ahead.is_ahead
    for size in (1, 3, 4, 10, 20):
        parts = list(ahead.parts(images, size))
        assert [len(part) for part in parts] == [len(part) for part in images.batches(size)]
        assert torch.equal(torch.cat([part.pixels for part in parts]).cpu(), images.pixels)
        assert torch.cat([part.ids for part in parts]).tolist() == images.ids.tolist()
    assert not Ahead("cpu").is_ahead
    assert torch.equal(torch.cat([part.pixels for part in Ahead("cpu").parts(images, 3)]), images.pixels)


def test_what_was_begun_is_taken_once_and_only_under_its_name(images: Dataset, ahead: Ahead) -> None:
    first, second = images.select(range(4)), images.select(range(4, 8))
    ahead.begin("second", second)
    assert ahead.taken("first", first).ids.tolist() == first.ids.tolist()
    assert ahead.taken("second", first).ids.tolist() == second.ids.tolist(), "decoded before"
    assert ahead.taken("second", first).ids.tolist() == first.ids.tolist(), "taken once"


def test_a_broken_image_raises_where_it_is_used(images: Dataset, ahead: Ahead) -> None:
    assert not isinstance(images.images, torch.Tensor)
    images.images.paths[7].write_bytes(b"no image")
    parts = ahead.parts(images, 4)
    next(parts)
    with pytest.raises(InputError, match="not readable"):
        next(parts)


def test_the_images_after_a_shard() -> None:
    shard = ImagesInput("letters", "", 4, 8)
    assert shard.following(20) == ImagesInput("letters", "", 8, 12)
    assert shard.following(10) == ImagesInput("letters", "", 8, 10)
    assert shard.following(8) is None
    assert ImagesInput("letters", "").following(8) is None

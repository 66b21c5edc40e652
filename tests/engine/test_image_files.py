"""What fooling points do as image files, against files that Pillow writes and against a model that reads one value."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from transferbench.engine.image_files import compressed, judge_files, rounded
from transferbench.engine.judge import Judge
from transferbench.engine.verdicts import Examples


@pytest.mark.parametrize("channels", [1, 3])
def test_both_formats_are_what_files_on_disk_return(tmp_path: Path, channels: int) -> None:
    generator = torch.Generator().manual_seed(channels)
    images = torch.rand(3, channels, 19, 24, generator=generator)
    for number, image in enumerate(images):
        levels = (image * 255).round().to(torch.uint8).movedim(0, -1).numpy()
        picture = Image.fromarray(levels[..., 0] if channels == 1 else levels)
        picture.save(tmp_path / f"{number}.png")
        picture.save(tmp_path / f"{number}.jpg", quality=90)
    for saved, ending in ((rounded(images), "png"), (compressed(images), "jpg")):
        expected = torch.stack([to_tensor(Image.open(tmp_path / f"{number}.{ending}")) for number in range(3)])
        torch.testing.assert_close(saved, expected, rtol=0, atol=1e-7)


def test_images_of_a_file_are_unchanged_by_rounding() -> None:
    levels = torch.arange(256).view(1, 1, 16, 16) / 255
    assert torch.equal(rounded(levels), levels)


class _FirstValue(nn.Module):
    """Class 1 where the image's first value is at least `level`/255."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level / 255

    def forward(self, x: Tensor) -> Tensor:
        above = x.flatten(1)[:, :1] - self.level + 1e-6
        return torch.cat([-above, above], dim=1)


def test_a_point_fools_as_a_file_where_any_of_its_roundings_does() -> None:
    x = torch.full((4, 1, 2, 2), 99 / 255)
    examples = Examples(x, torch.tensor([0, 0, 0, 0]), torch.arange(4))
    points = x.expand(2, 4, 1, 2, 2).clone()
    points[0, 0] = 100.2 / 255  # rounds to 100: still class 1
    points[0, 1] = 100.2 / 255
    points[1, 1] = 102 / 255
    points[0, 2] = 99.6 / 255  # fools at 99.6 only where the border lies below
    fooled = torch.tensor([[True, True, True, False], [False, True, False, False]])
    judge = Judge(_FirstValue(100), floor=4)
    eight_bits, jpeg = judge_files(judge, examples, points, fooled)
    assert eight_bits.fooling == (True, True, True, False)
    assert eight_bits.control == (False, False, False, False)
    assert (jpeg.format, len(jpeg.fooling)) == ("jpeg90", 4)
    # At 100.4 a point of 100.4 fools, and its rounding to 100 does not.
    strict = Judge(_FirstValue(100.4), floor=4)
    points[0, 0] = 100.45 / 255
    assert judge_files(strict, examples, points, fooled)[0].fooling == (False, True, False, False)
    assert judge.checks == 2 * (3 + 1 + 3), "the fooling points of each try, and their clean images"


def test_the_control_counts_clean_images_that_their_file_changes() -> None:
    x = torch.full((2, 1, 2, 2), 99.6 / 255)
    examples = Examples(x, torch.tensor([0, 0]), torch.arange(2))
    points = torch.full_like(x, 1.0)[None]
    eight_bits = judge_files(Judge(_FirstValue(99.8), floor=4), examples, points, torch.tensor([[True, False]]))[0]
    assert (eight_bits.fooling, eight_bits.control) == ((True, False), (True, False))


def test_images_of_two_channels_have_no_jpeg_file() -> None:
    x = torch.zeros(1, 2, 2, 2)
    examples = Examples(x, torch.tensor([0]), torch.arange(1))
    found = judge_files(Judge(_FirstValue(1), floor=4), examples, x[None] + 1, torch.tensor([[True]]))
    assert [one.format for one in found] == ["8bit"]


def test_more_points_than_are_saved_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = torch.rand(2, 400, 1, 2, 2, generator=generator) * 200 / 255
    x = torch.full((400, 1, 2, 2), 99.6 / 255)
    examples = Examples(x, torch.zeros(400, dtype=torch.int64), torch.arange(400))
    fooled = torch.rand(2, 400, generator=generator) < 0.7
    eight_bits = judge_files(Judge(_FirstValue(100), floor=4), examples, levels, fooled)[0]
    still = ((levels[..., 0, 0, 0] * 255).round() >= 100) & fooled
    assert list(eight_bits.fooling) == still.any(0).tolist()
    assert list(eight_bits.control) == fooled.any(0).tolist(), "99.6 is saved as 100"

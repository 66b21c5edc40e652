"""Strips: what a run keeps of its examples to be looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from suite import TINY, go

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.leaderboard import example_gallery
from transferbench.results import records
from transferbench.store.reader import Reader


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("strips") / "out"
    go(root)
    return root


def test_the_pictures_are_the_stored_points(run: Path) -> None:
    """Every cell again, from the store and the data: clean, adversarial, magnified difference."""
    reader = Reader(run)
    digits = data.load("digits", "test").first(24)
    place = {int(id): at for at, id in enumerate(digits.ids)}
    looked_at = 0
    for record in records.read_all(run):
        if record.role == "source":
            continue
        path = run / "strips" / f"{record.victim}.png"
        assert path.stat().st_size <= 50_000
        shown = example_gallery.read(path)
        grid = np.asarray(Image.open(path).convert("RGB"))
        norms = list(dict.fromkeys(cell.norm for cell in shown.cells))
        assert norms == ["Linf", "L2", "L1"]
        for cell in shown.cells:
            chain = record.chain(cell.norm)
            assert chain is not None
            job = reader.job(chain.jobs[0])
            assert job is not None
            tensors, verdicts = reader.examples(job.result["examples"]), job.result["verdicts"]
            at = verdicts["example"].index(cell.example)
            assert (verdicts["rank"][at] >= 0, verdicts["attack"][at]) == (True, cell.attack)
            assert digits.classes[verdicts["pred"][at]] == cell.pred
            assert digits.classes[int(digits.labels[place[cell.example]])] == cell.label
            clean = digits.pixels[place[cell.example], 0].numpy()
            point = tensors["points"][tensors["ids"].tolist().index(cell.example), 0].numpy()
            apart = point.astype(float) - clean
            assert cell.gain * np.abs(apart).max() == pytest.approx(0.5, rel=0.01)
            for line, image in enumerate((clean, point, 0.5 + cell.gain * apart)):
                top, left = (3 * norms.index(cell.norm) + line) * 9 + 1, cell.column * 9 + 1
                seen = grid[top : top + 8, left : left + 8].astype(float) / 255
                assert np.abs(seen - image[:, :, None]).max() < 0.006
            looked_at += 1
    assert looked_at > 12


def test_large_photographs_stay_small_and_still_show_something() -> None:
    rng = np.random.default_rng(0)
    pictures = [
        (
            example_gallery.Cell(norm=norm, column=k, example=k, label="a", pred="b", attack="x", distance=0.1, gain=0),
            rng.random((3, 224, 224), dtype=np.float32),
            rng.random((3, 224, 224), dtype=np.float32),
        )
        for norm in ("Linf", "L2", "L1")
        for k in range(8)
    ]
    content = example_gallery.draw(pictures)
    assert len(content) <= example_gallery.LIMIT


def test_no_points_no_strip(tmp_path: Path) -> None:
    from transferbench.base.specifications import Keep

    go(tmp_path / "out", keep=Keep.parse("none"))
    assert not list((tmp_path / "out" / "strips").glob("*"))
    assert (tmp_path / "out" / "leaderboard.csv").is_file()


def test_a_strip_that_is_gone_from_the_plan_goes(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    go(root)
    assert (root / "strips" / "probe-s0.png").is_file()
    go(root, text=TINY.replace("{name: probe,", "{name: other,"))
    assert not (root / "strips" / "probe-s0.png").exists()
    assert (root / "strips" / "other-s0.png").is_file()


@pytest.mark.parametrize("content", [b"no picture", b""])
def test_what_is_no_strip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.png: not one of ours"):
        example_gallery.read(path)
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(InputError, match=r"x\.png: not one of ours"):
        example_gallery.read(path)

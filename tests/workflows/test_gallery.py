"""Example galleries: what a run keeps of its examples to be looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny_suite import TINY, run_tiny

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.base.results import AttackResult
from transferbench.leaderboard import example_gallery
from transferbench.results import records
from transferbench.store.reader import Reader


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("galleries") / "out"
    run_tiny(root)
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
        path = run / "galleries" / f"{record.victim}.png"
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
            result = job.result(AttackResult)
            assert result.examples is not None
            tensors = reader.examples(result.examples)
            verdict = next(verdict for verdict in result.verdicts if verdict.example == cell.example)
            assert (verdict.rank >= 0, verdict.attack) == (True, cell.attack)
            assert digits.classes[verdict.pred] == cell.pred
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


def test_no_points_no_gallery(tmp_path: Path) -> None:
    from transferbench.base.specifications import Keep

    run_tiny(tmp_path / "out", keep=Keep.parse("none"))
    assert not list((tmp_path / "out" / "galleries").glob("*"))
    assert (tmp_path / "out" / "leaderboard.csv").is_file()


@pytest.mark.slow
def test_a_gallery_that_is_gone_from_the_plan_goes(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    run_tiny(root)
    assert (root / "galleries" / "probe-s0.png").is_file()
    run_tiny(root, text=TINY.replace("{name: probe,", "{name: other,"))
    assert not (root / "galleries" / "probe-s0.png").exists()
    assert (root / "galleries" / "other-s0.png").is_file()


@pytest.mark.parametrize("content", [b"no picture", b""])
def test_what_is_no_gallery_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.png: not one of ours"):
        example_gallery.read(path)
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(InputError, match=r"x\.png: not one of ours"):
        example_gallery.read(path)

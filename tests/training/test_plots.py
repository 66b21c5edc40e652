from __future__ import annotations

from pathlib import Path

from PIL import Image

from transferbench.training import plots


def test_a_training_is_drawn_with_all_its_parts_and_the_same_each_time(tmp_path: Path) -> None:
    head = [{"step": step, "phase": "head", "lr": 0.1, "ce": 2 - step / 100} for step in range(0, 50, 10)]
    rest = [{"step": step, "phase": "all", "lr": 0.01, "ce": 1.4, "$_features": 0.3} for step in range(50, 90, 10)]
    for name in ("a.png", "b.png"):
        plots.draw(tmp_path / name, [*head, *rest], "lwf $x$")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (770, 550)
        colours = {colour[:3] for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    # The first two parts' colours of the palette are there.
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours
    plots.draw(tmp_path / "empty.png", [], "nothing")
    assert (tmp_path / "empty.png").stat().st_size > 1000

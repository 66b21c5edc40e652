"""Caltech-256's own way to list files."""

from __future__ import annotations

from pathlib import Path

from transferbench import data
from transferbench.data import View
from transferbench.smoke import trees

VIEW = View("Res36Crop32", synthetic=True)


def test_what_systems_and_users_leave_behind_is_no_class_and_no_image(tmp_path: Path) -> None:
    tree = trees.caltech256(tmp_path)
    before = data.load("caltech256", "test", tmp_path, VIEW)
    base = tmp_path / "caltech256" / "256_ObjectCategories"
    (base / ".DS_Store").write_bytes(b"x")
    (base / "index.html").write_bytes(b"x")
    (base / ".ipynb_checkpoints").mkdir()
    first = base / tree.classes[0]
    (first / "._001_0001.jpg").write_bytes(b"x")
    # As in the official archive: 198.spider/RENAME2, 056.dog/greg.
    (first / "RENAME2").write_bytes(b"x")
    (first / "thumb.png").write_bytes(b"x")
    trees.photo(first / "greg" / "001_0099.jpg", 1)
    after = data.load("caltech256", "test", tmp_path, VIEW)
    assert after.classes == tree.classes
    assert after.fingerprint == before.fingerprint
    assert not before.notes
    said = "left out: .html 1, file without suffix 1, folder 1, image not called *.jpg 1"
    assert after.notes == (said,)

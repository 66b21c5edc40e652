"""CUB-200's lists: class names belong to numbers, not to lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.data import View
from transferbench.smoke import trees

VIEW = View("Res36Crop32")


def test_class_names_follow_their_numbers(tmp_path: Path) -> None:
    tree = trees.cub200(tmp_path)
    path = tmp_path / "CUB_200_2011" / "classes.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[1:], lines[0]]) + "\n")
    assert data.load("cub200", "test", tmp_path, VIEW).classes == tree.classes
    path.write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(InputError, match="does not number its classes 1 to 2"):
        data.load("cub200", "test", tmp_path, VIEW)

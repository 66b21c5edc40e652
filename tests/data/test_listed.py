"""Lists of images: how their lines are read, and the names that order and ids are made of."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

import pytest

from transferbench.base.errors import InputError
from transferbench.data import listed
from transferbench.data.listed import ListedImage


def test_lines_are_those_of_any_editor(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa/1.jpg\r\n\r\n  b/2.jpg \nc/3\xc2\x85.jpg\n")
    assert listed.lines(path) == ["a/1.jpg", "b/2.jpg", "c/3\x85.jpg"]
    path.write_bytes(b"caf\xe9/1.jpg\n")
    with pytest.raises(InputError, match=r"list\.txt: not readable"):
        listed.lines(path)


def test_ids_are_the_first_63_bits_of_the_paths_hash() -> None:
    assert listed.example_id("a/1.jpg") == int(hashlib.sha256(b"a/1.jpg").hexdigest()[:16], 16) >> 1


def test_a_copy_made_by_macos_has_the_same_order_and_ids() -> None:
    rows = [ListedImage(f"caf\xe9/{k}.jpg", k) for k in range(20)]
    others = [ListedImage(unicodedata.normalize("NFD", row.path), row.label) for row in rows]
    assert rows != others
    assert [row.label for row in listed.hashed(rows)] == [row.label for row in listed.hashed(others)]
    assert [listed.example_id(row.path) for row in rows] == [listed.example_id(row.path) for row in others]


def test_a_folder_that_cannot_be_entered_counts_as_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing .*expected there: a, b; get it from somewhere"):
        listed.require("x", tmp_path / ("y" * 5000), ("a", "b"), "somewhere")

"""Which files and folders count: hidden entries, links, suffixes, names."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from transferbench.base.errors import InputError
from transferbench.data import listing

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def make(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_hidden_entries_and_system_folders_do_not_exist(tmp_path: Path) -> None:
    hidden = (
        ".a.png",
        "._a.png",
        ".DS_Store",
        ".ipynb_checkpoints/a.png",
        "__MACOSX/a.png",
        "@eaDir/a.png",
        "b/.c.png",
    )
    make(tmp_path / "a.png", *(tmp_path / name for name in hidden))
    found = listing.images_below(tmp_path)
    assert found.paths == ["a.png"]
    assert not found.left_out
    make(tmp_path / "classes" / "cat" / "a.png", tmp_path / "classes" / ".ipynb_checkpoints" / "a.png")
    assert list(listing.class_folders(tmp_path / "classes").folders) == ["cat"]


def test_a_folder_that_is_called_like_an_image_is_a_folder(tmp_path: Path) -> None:
    make(tmp_path / "x.png" / "y.png", tmp_path / "z.JPG" / "readme.txt")
    found = listing.images_below(tmp_path)
    assert (found.paths, dict(found.left_out)) == (["x.png/y.png"], {".txt": 1})


def test_every_suffix_is_an_image_in_any_case_and_all_others_are_counted(tmp_path: Path) -> None:
    pillow = Image.registered_extensions()
    for suffix in listing.SUFFIXES:
        make(tmp_path / f"lower{suffix}", tmp_path / f"upper{suffix.upper()}")
        assert suffix in pillow or suffix == ".avif", f"Pillow knows {suffix}"
    assert {".jfif", ".webp", ".jpe", ".apng", ".pbm"} <= listing.SUFFIXES
    make(*(tmp_path / name for name in ("a.HEIC", "b.heic", "c.txt", "d", "e.png.part", "f.npy", "g.svg", "h.json")))
    os.mkfifo(tmp_path / "pipe.png")
    found = listing.images_below(tmp_path)
    assert len(found.paths) == 2 * len(listing.SUFFIXES)
    others = (".json", ".npy", ".part", ".svg", ".txt", "file without suffix", "special file")
    assert found.left_out == {".heic": 2, **dict.fromkeys(others, 1)}
    said = "left out: .heic 2, .json 1, .npy 1, .part 1, .svg 1, others 3"
    assert listing.text(found.left_out) == said
    assert listing.text(listing.LeftOut()) == ""


def test_links_are_followed_once_and_never_back(tmp_path: Path) -> None:
    base, pool = tmp_path / "set" / "test" / "cat", tmp_path / "pool"
    make(base / "a.png", base / "more" / "b.png", tmp_path / "set" / "test" / "dog" / "d.png", pool / "deep" / "c.png")
    (base / "linked").symlink_to(pool)
    (base / "e.png").symlink_to(pool / "deep" / "c.png")
    for name in ("0 again", "z again"):
        (base / name).symlink_to(base / "more")
    (base / "self").symlink_to(base)
    (base / "up").symlink_to(tmp_path / "set")
    (pool / "up").symlink_to(tmp_path / "set" / "test")
    (pool / "deep" / "parent").symlink_to(pool)
    (base / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (base / "circle").symlink_to(base / "circle")
    found = listing.images_below(base)
    assert found.paths == ["a.png", "e.png", "linked/deep/c.png", "more/b.png"]
    assert found.left_out == {"broken link": 2, listing.LOOP: 4, "second link to a folder": 2}


def test_class_folders_may_be_links_but_not_to_what_holds_them(tmp_path: Path) -> None:
    base = tmp_path / "test"
    make(base / "cat" / "a.png", tmp_path / "dogs" / "b.png", base / "stray.png", base / "labels.csv")
    (base / "dog").symlink_to(tmp_path / "dogs")
    (base / "all").symlink_to(base)
    (base / "gone").symlink_to(tmp_path / "nowhere")
    found = listing.class_folders(base)
    assert list(found.folders) == ["cat", "dog"]
    outside = "image outside the class folders"
    assert found.left_out == {outside: 1, ".csv": 1, listing.LOOP: 1, "broken link": 1}


def test_two_unicode_spellings_of_one_name_are_one_class_or_refused(tmp_path: Path) -> None:
    make(tmp_path / "mac" / NFD / "a.png", tmp_path / "other" / NFC / "a.png")
    for name, stored in (("mac", NFD), ("other", NFC)):
        assert listing.class_folders(tmp_path / name).folders == {NFC: stored}
    make(tmp_path / "mac" / NFC / "b.png")
    with pytest.raises(InputError, match="two class folders are called 'café', in two Unicode spellings: join them"):
        listing.class_folders(tmp_path / "mac")
    make(tmp_path / "files" / f"{NFC}.png", tmp_path / "files" / f"{NFD}.png")
    with pytest.raises(InputError, match=r"two files are called 'café\.png'"):
        listing.images_below(tmp_path / "files")


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        with open(name, "wb"):
            pass
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(InputError, match=r"caf\\udce9\.png' is not valid UTF-8: rename it"):
        listing.images_below(tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "a" / "b" / "c.png")
    original = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"folder .*b: cannot be listed \(Permission denied\)"):
        listing.images_below(tmp_path)
    with pytest.raises(InputError, match=r"nowhere: (not readable|cannot be listed) \(No such file"):
        listing.images_below(tmp_path / "nowhere")

"""A folder that cannot be written is refused before anything runs, and nothing is created."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from transferbench.base import atomic_files
from transferbench.base.errors import InputError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["file", "file/below", "file/two/below", "loop", "loop/x", "dangling", "x" * 300,
                                  "new/" + "y" * 256])  # fmt: skip
def test_what_is_no_folder_to_write_in(place: Path, name: str) -> None:
    before = sorted(place.iterdir())
    with pytest.raises(InputError, match=r"--out .*: cannot write there") as caught:
        atomic_files.check_folder(place / name)
    assert "\n" not in str(caught.value)
    assert sorted(place.iterdir()) == before
    with pytest.raises(InputError), atomic_files.locked(place / name):
        pass


@pytest.mark.parametrize("name", ["folder", "new", "new/deep/er", "folder/new", "."])
def test_what_can_be_written_is_not_created(place: Path, name: str) -> None:
    before = sorted(place.rglob("*"))
    atomic_files.check_folder(place / name)
    assert sorted(place.rglob("*")) == before
    with atomic_files.locked(place / name):
        pass


def test_a_relative_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for name in ("", ".", "new/x", "folder"):
        atomic_files.check_folder(Path(name))


def test_a_folder_in_use(place: Path) -> None:
    with atomic_files.locked(place / "folder"), pytest.raises(InputError, match="another transferbench is writing"):
        atomic_files.check_folder(place / "folder")
    atomic_files.check_folder(place / "folder")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_without_permission(place: Path) -> None:
    """In a process of another user, as permissions say nothing to root."""
    for folder in (place, *place.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    (place / "folder").chmod(0o555)
    child = os.fork()
    if child == 0:
        code = 3
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            atomic_files.check_folder(place / "folder" / "new")
        except InputError as error:
            code = 0 if "no permission" in str(error) else 4
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

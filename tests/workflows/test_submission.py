"""Submissions: a run packed and checked, the same bytes twice, and archives that somebody changed."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.tiny_suite import run_tiny

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.results import verification
from transferbench.workflows import submission

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("submission") / "out"
    run_tiny(root)
    assert verification.verify(root) == []
    return root


@pytest.fixture(scope="module")
def archive(run: Path) -> Path:
    path = run.parent / "tiny.zip"
    submission.pack(run, path)
    return path


def changed(archive: Path, path: Path, change: Callable[[Files], object], mend: bool = True) -> Path:
    """The archive with other files; `mend`: by a forger who also mends the manifest."""
    with zipfile.ZipFile(archive) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    change(files)
    if mend:
        manifest = json.loads(files[submission.MANIFEST])
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            for name, content in files.items()
            if name != submission.MANIFEST
        }
        files[submission.MANIFEST] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def test_a_run_is_packed_and_its_archive_passes(run: Path, archive: Path, tmp_path: Path) -> None:
    items, complaints = submission.check(archive)
    assert complaints == []
    assert items == submission.pack(run, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    by_text = {item.text: item.holds for item in items}
    assert by_text["all 3 records are verified and unchanged since"]
    assert not by_text["200 attacked examples or more: at least 24"]
    with zipfile.ZipFile(archive) as packed:
        assert "- [ ] 200 attacked" in packed.read(submission.CHECKLIST).decode()
        assert not any(name.startswith(("examples", "victims")) for name in packed.namelist())


def test_with_the_run_every_number_is_verified_again(run: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.zip"
    submission.pack(run, whole, whole_run=True)
    assert submission.check(whole)[1] == []

    def move_points(files: Files) -> None:
        for name in [name for name in files if name.startswith("examples/")]:
            content = bytearray(files[name])
            content[-1] ^= 0x40
            files[name] = bytes(content)

    _, complaints = submission.check(changed(whole, tmp_path / "moved.zip", move_points))
    assert complaints
    assert all("missing or changed" in complaint for complaint in complaints)


def test_what_is_not_ready_is_not_packed(run: Path, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        submission.pack(run, archive)
    unverified = tmp_path / "out"
    run_tiny(unverified)
    with pytest.raises(InputError, match="was never verified"):
        submission.pack(unverified, tmp_path / "no.zip")
    assert not (tmp_path / "no.zip").exists()


def edit(name: str, before: str, after: str) -> Callable[[Files], object]:
    def change(files: Files) -> None:
        text = files[name].decode()
        assert before in text
        files[name] = text.replace(before, after, 1).encode()

    return change


COMPLAINTS = {
    "a record": (edit("records/finetune-s0.json", '"seed": 0', '"seed": 7'), "has changed since it was verified"),
    "a card": (edit("cards/finetune-s0.md", "sha256: ", "sha256: 0000#"), "card|sha256"),
    "a cell": (edit("leaderboard.csv", "finetune-s0", "finetune-s9"), "differs from the records"),
    "a tick": (edit(submission.CHECKLIST, "- [ ] 200", "- [x] 200"), "is not the checklist"),
    "a card that is gone": (lambda files: files.pop("cards/finetune-s0.md"), "no card"),
}


@pytest.mark.parametrize("name", COMPLAINTS)
def test_a_forger_who_mends_the_manifest_is_found(archive: Path, tmp_path: Path, name: str) -> None:
    change, complaint = COMPLAINTS[name]
    forged = changed(archive, tmp_path / "forged.zip", change)
    try:
        complaints = submission.check(forged)[1]
    except InputError as error:
        complaints = [str(error)]
    assert any(re.search(complaint, line) for line in complaints), complaints


REFUSED: dict[str, tuple[Callable[[Files], object], bool]] = {
    "a path upwards": (lambda files: files.update({"records/../../outside.json": b"{}"}), True),
    "an absolute path": (lambda files: files.update({"/tmp/outside.json": b"{}"}), True),
    "another folder": (lambda files: files.update({"scripts/run.py": b"1"}), True),
    "a file beside the manifest": (lambda files: files.update({"records/x.json": b"{}"}), False),
    "a hash": (edit("records/finetune-s0.json", '"seed": 0', '"seed": 1'), False),
    "no manifest": (lambda files: files.pop(submission.MANIFEST), False),
    "no checklist": (lambda files: files.pop(submission.CHECKLIST), True),
    "a manifest that is no object": (lambda files: files.update({submission.MANIFEST: b"[1"}), False),
    "no records": (lambda files: [files.pop(name) for name in list(files) if name.startswith("records")], True),
    "a damaged record": (lambda files: files.update({"records/finetune-s0.json": b"{"}), True),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_archive_is_refused_in_a_line(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change, mend = REFUSED[name]
    forged = changed(archive, tmp_path / "forged.zip", change, mend)
    assert main(["submit", str(forged), "--check"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forged.zip"], "nothing was written"


def test_a_run_that_a_command_works_on_is_not_packed(run: Path, tmp_path: Path) -> None:
    with atomic_files.locked(run), pytest.raises(InputError, match="a command is working on it"):
        submission.pack(run, tmp_path / "busy.zip")
    assert not (tmp_path / "busy.zip").exists()


def test_a_complaint_names_the_archive(archive: Path, tmp_path: Path) -> None:
    damaged = changed(archive, tmp_path / "d.zip", lambda files: files.update({"records/finetune-s0.json": b"{"}))
    with pytest.raises(InputError, match=re.escape(str(damaged))):
        submission.check(damaged)


def test_what_is_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.zip").write_text("none")
    for path in ("text.zip", "missing.zip", "."):
        assert main(["submit", str(tmp_path / path), "--check"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_link_in_an_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "link.zip"
    link = zipfile.ZipInfo("records/link.json")
    link.external_attr = 0o120777 << 16
    changed(archive, path, lambda files: None)
    with zipfile.ZipFile(path) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    manifest = json.loads(files[submission.MANIFEST])
    manifest["files"][link.filename] = {"sha256": hashlib.sha256(b"/etc/passwd").hexdigest(), "size": 11}
    files[submission.MANIFEST] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
        packed.writestr(link, b"/etc/passwd")
    with pytest.raises(InputError, match="no file of a submission"):
        submission.check(path)


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "mine.zip"
    assert main(["submit", str(run), "--out", str(archive)]) == 0
    assert main(["submit", str(archive), "--check"]) == 0
    out = capsys.readouterr().out
    assert "[x] all 3 records are verified" in out
    assert "its records, cards and tables agree" in out
    assert main(["submit", str(archive), "--check", "--with-run"]) == 2


@pytest.mark.parametrize("name", ["missing/x.zip", f"{'s' * 300}.zip"])
def test_an_archive_that_cannot_be_written_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["submit", str(run), "--out", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["examples/x", "records/notes.txt", "cards/\u202e.md", "galleries/a/b.png", "store.sqlite3"]
)
def test_a_file_that_pack_does_not_write_is_refused(archive: Path, tmp_path: Path, name: str) -> None:
    bad = changed(archive, tmp_path / "bad.zip", lambda files: files.__setitem__(name, b""))
    with pytest.raises(InputError, match=r"^\S+bad.zip: .* is no file of a submission$"):
        submission.check(bad)


@pytest.mark.parametrize("name", [submission.CHECKLIST, "leaderboard.csv"])
def test_a_table_that_is_no_text_is_a_complaint(archive: Path, tmp_path: Path, name: str) -> None:
    bad = changed(archive, tmp_path / "bad.zip", lambda files: files.__setitem__(name, b"\xff"))
    assert submission.check(bad)[1]

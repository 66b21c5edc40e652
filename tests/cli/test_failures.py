"""Whatever is raised, the command ends with one line and a status."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from transferbench.base.errors import FaultError, InputError
from transferbench.cli import main as console_script
from transferbench.cli.failures import failure, one_line

CLI = [sys.executable, "-m", "transferbench.cli"]


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command raises."""

    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(console_script.LazyCommands, "get_command", lambda *_: command)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("a name\nin two lines"), 2, "error: a name in two lines"),
        (FaultError("nan"), 1, "fault: nan"),
        (PermissionError(errno.EACCES, "Permission denied", "w.pt"), 1, "w.pt: Permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), 1, "..."),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "loop"), 1, "loop: Too many levels"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "file/x"), 1, "file/x: Not a directory"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "d"), 1, "d: Is a directory"),
        (OSError(errno.ENOSPC, "No space left on device", "f"), 1, "free disk space"),
        (OSError("no number"), 1, "no number"),
        (UnicodeEncodeError("ascii", "\xe8", 0, 1, "not in range"), 1, "as ascii"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), 1, "as utf-8"),
        (RecursionError("maximum depth"), 1, "nested too deeply"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "out of memory"),
        (KeyError("x"), 1, "internal error (KeyError: 'x'"),
        (AssertionError(), 1, "internal error (AssertionError"),
        (RuntimeError("one\n\n two\x1b[31m"), 1, r"internal error (RuntimeError: one two\x1b[31m"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_one_line_and_a_status(
    error: BaseException, status: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(error, monkeypatch)
    assert console_script.main(["list"]) == status
    out, line = capsys.readouterr()
    assert out == ""
    assert line.count("\n") == 1
    assert line.startswith("transferbench: ")
    assert words in line
    assert len(line) < 2100


@pytest.mark.parametrize("words", [["--debug", "list"], ["list", "--debug"]])
def test_debug_shows_the_traceback(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(KeyError("x"), monkeypatch)
    assert console_script.main(words) == 1
    text = capsys.readouterr().err
    assert "Traceback (most recent call last)" in text
    assert "internal error" in text.splitlines()[-1]
    monkeypatch.setenv("TRANSFERBENCH_DEBUG", "1")
    assert console_script.main(["list"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_place_of_an_internal_error_is_named() -> None:
    with pytest.raises(AttributeError) as caught:
        one_line(None)  # type: ignore[arg-type]
    assert ", cli/failures.py:" in failure(caught.value).message


def test_a_bare_command_is_the_help() -> None:
    done = subprocess.run(CLI, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: ")
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_the_output() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*CLI, "list", "methods"], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "No space left on device" in done.stderr
        subprocess.run([*CLI, "list", "methods"], stdout=full, stderr=full, check=False)


def test_a_reader_that_has_gone() -> None:
    done = subprocess.run(f"{' '.join(CLI)} list methods | true; exit ${{PIPESTATUS[0]}}", shell=True,
                          executable="/bin/bash", capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_closed_streams() -> None:
    done = subprocess.run(f"{' '.join(CLI)} list methods >&- 2>&-", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("word", [b"\xff\xfe", b"mod\xe8le"])
def test_bytes_that_are_no_text_are_refused_first(tmp_path: Path, word: bytes) -> None:
    train = [b"train", b"--plugin", b"natural", b"--target", b"digits", b"--out", word]
    done = subprocess.run([*map(os.fsencode, CLI), *train], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not text in this terminal's encoding" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_precision_is_of_our_search_alone(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--model", "letters-madry", "--backend", "autoattack", "--precision", "bf16"]
    assert console_script.main(words) == 2
    assert "--precision bf16 is of our search" in capsys.readouterr().err

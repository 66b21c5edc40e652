"""A plugin that cannot be read or imported is one line on standard error; everything else works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

METHOD = '''"""Fine: a method that works."""
from transferbench.methods import BaseMethod, BaseParams as Params
VERSION = 1
class Method(BaseMethod):
    needs_source = False
    def student(self, source, fresh, num_classes):
        return fresh()
'''


def package(folder: Path, points: str, **files: str | bytes) -> None:
    """A distribution with entry points, as pip would have installed it."""
    (folder / "plug").mkdir()
    (folder / "plug" / "__init__.py").write_text("")
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / "plug" / f"{name}.py").write_bytes(data)
    info = folder / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "transferbench.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("content", "warns", "complaint"),
    [
        ('"""Broken."""\ndef f(:\n', True, "cannot be read (SyntaxError: invalid syntax, broken.py line 2)"),
        pytest.param(b'"""\xff"""\n', True, "cannot be read", marks=pytest.mark.slow),
        pytest.param(b"x = 1\0\n", True, "cannot be read", marks=pytest.mark.slow),
        pytest.param("(" * 500, True, "cannot be read", marks=pytest.mark.slow),
        pytest.param("IDS = dict(broken='x')\n", True, "cannot be read", marks=pytest.mark.slow),
        pytest.param("IDS = ['broken']\n", True, "cannot be read", marks=pytest.mark.slow),
        pytest.param(
            "import no_such_module\n", False, "cannot import plug.broken (ModuleNotFoundError", marks=pytest.mark.slow
        ),
        pytest.param(
            "raise KeyError('x')\n", False, "cannot import plug.broken (KeyError: 'x')", marks=pytest.mark.slow
        ),
        ("raise SystemExit(3)\n", False, "cannot import plug.broken (SystemExit: 3)"),
        ('"""Only a docstring."""\n', False, "has no VERSION"),
    ],
)
def test_one_broken_plugin_is_one_line(tmp_path: Path, content: str | bytes, warns: bool, complaint: str) -> None:
    points = "[transferbench.methods]\nbroken = plug.broken\nfine = plug.fine\n[transferbench.data]\nx = plug.broken\n"
    package(tmp_path, points, broken=content, fine=METHOD)
    listed = run(tmp_path, "list", "methods")
    assert listed.returncode == 0, listed.stderr
    assert listed.stderr.count("\n") == warns, listed.stderr
    assert {"broken", "fine", "lwf"} <= {line.split()[0] for line in listed.stdout.splitlines()}
    used = run(tmp_path, "train", "--plugin", "broken", "--target", "digits", "--out", "x")
    assert used.returncode == 2
    errors = [line for line in used.stderr.splitlines() if line.startswith("transferbench: error: ")]
    assert len(used.stderr.splitlines()) == 1 + warns
    assert complaint in errors[0]
    assert "method 'broken'" in errors[0]
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_the_others_can_be_used(tmp_path: Path) -> None:
    package(tmp_path, "[transferbench.methods]\nbroken = plug.broken\nfine = plug.fine\n", broken="def", fine=METHOD)
    short = ["--set", "steps=2", "--set", "batch_size=8"]
    done = run(tmp_path, "train", "--plugin", "fine", "--target", "digits", *short, "--out", "x")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "point",
    [
        "lwf = plug.fine",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("odd = not a module!", "gone = plug.gone")),
    ],
)
def test_names_that_are_taken_or_lead_nowhere(tmp_path: Path, point: str) -> None:
    package(tmp_path, f"[transferbench.methods]\n{point}\n", fine=METHOD)
    name = point.partition(" ")[0]
    listed = run(tmp_path, "list", "methods")
    assert listed.returncode == 0, listed.stderr
    assert name in [line.split()[0] for line in listed.stdout.splitlines()]
    used = run(tmp_path, "train", "--plugin", name, "--target", "digits", "--out", "x")
    assert used.returncode == 2
    assert f"method {name!r}" in used.stderr.splitlines()[-1]
    assert run(tmp_path, "train", "--plugin", "lfw", "--target", "digits").returncode == 2


@pytest.mark.parametrize(
    "word",
    [
        "small-resnet:zz",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("aa-resnet18:", "resized:8-x:small-resnet")),
    ],
)
def test_a_network_that_takes_nothing_behind_a_colon(tmp_path: Path, word: str) -> None:
    done = run(tmp_path, "train", "--plugin", "natural", "--target", "digits", "--network", word, "--out", "x")
    assert done.returncode == 2
    assert f"{word!r}" in done.stderr or f"network {word}" in done.stderr
    assert not (tmp_path / "x").exists()

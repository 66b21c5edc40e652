"""The built wheel works without the source tree: what is not packaged is missed here."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from support.photographs import crops

ROOT = Path(__file__).parent.parent


def run(*words: str | Path, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, words)], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def copied(tmp_path: Path) -> Path:
    """A copy of what the package is made of, so that nothing is left in the source tree."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "transferbench"):
        run("cp", "-r", ROOT / name, source / name, cwd=tmp_path)
    return source


def wheel(tmp_path: Path) -> Path:
    source = copied(tmp_path)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source, cwd=tmp_path)
    (built,) = tmp_path.glob("transferbench-*.whl")
    return built


def files_of_the_package() -> set[str]:
    """All that is below transferbench/, but what Python leaves there."""
    every = (path for path in (ROOT / "transferbench").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(ROOT)) for path in every}


def test_the_archives_hold_the_package_and_nothing_of_the_tests(tmp_path: Path) -> None:
    """As `make dist` builds them; a wheel that is built from the source archive is the same."""
    source = copied(tmp_path)
    (source / "tests").mkdir()
    (source / "tests" / "test_left_out.py").write_text("")
    run(sys.executable, "-m", "hatchling", "build", "-d", tmp_path / "dist", cwd=source)
    (built,), (archive,) = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    package = files_of_the_package()
    kinds = ("suites/croce2021.yaml", "py.typed", "leaderboard/templates/page.js", "models/catalogue/robustbench.json")
    assert package >= {f"transferbench/{name}" for name in (*kinds, "models/embedded/letters-madry/model.safetensors")}
    names = set(zipfile.ZipFile(built).namelist())
    assert {name for name in names if ".dist-info/" not in name} == package
    with tarfile.open(archive) as opened:
        inside = {name.partition("/")[2] for name in opened.getnames()}
        opened.extractall(tmp_path / "unpacked", filter="data")
    assert inside - package == {
        "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "PKG-INFO",
    }  # fmt: skip
    assert package <= inside
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again", cwd=unpacked)
    assert set(zipfile.ZipFile(next((tmp_path / "again").glob("*.whl"))).namelist()) == names


def photographs(folder: Path) -> Path:
    """Two folders of crops, named as two of CIFAR-10's classes among ten."""
    import numpy as np

    from transferbench.models.catalogue import classes

    for at, image in enumerate(crops()[:20]):
        place = folder / "test" / classes.of("cifar10")[at % 10]
        place.mkdir(parents=True, exist_ok=True)
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{at}.png")
    return folder


def check(binaries: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = binaries / "transferbench"
    where = run(binaries / "python", "-c", "import transferbench; print(transferbench.__file__)", cwd=elsewhere)
    assert str(ROOT / "transferbench") not in where, "the wheel is used, not the source tree"
    assert len(run(command, "list", "models", cwd=elsewhere).splitlines()) > 206
    assert "letters-to-digits" in run(command, "list", "suites", cwd=elsewhere)
    assert "Carmon2019Unlabeled" in run(command, "card", "RB_Carmon2019", cwd=elsewhere)
    images = photographs(tmp_path / "images")
    words = ["--model", "AA_ResNet18", "--dataset", f"folder:{images}", "--norms", "Linf", "--attacks", "fgsm"]
    out = run(command, "eval", *words, "--out", "e", cwd=elsewhere)
    assert "first 20" in out
    assert (elsewhere / "e" / "leaderboard.md").is_file()


def test_the_wheel_evaluates_without_the_source_tree(tmp_path: Path) -> None:
    built = wheel(tmp_path)
    venv.create(tmp_path / "fresh", with_pip=False)
    binaries = tmp_path / "fresh" / "bin"
    site = next((tmp_path / "fresh" / "lib").glob("python3*")) / "site-packages"
    run(sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--no-deps", built, cwd=tmp_path)
    # The installed dependencies are seen; a path in a .pth file does not bring the editable installation with it.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    check(binaries, tmp_path)


@pytest.mark.slow
def test_the_wheel_brings_everything_it_needs(tmp_path: Path) -> None:
    built = wheel(tmp_path)
    venv.create(tmp_path / "fresh", with_pip=True)
    binaries = tmp_path / "fresh" / "bin"
    run(binaries / "python", "-m", "pip", "install", "--quiet", built, cwd=tmp_path)
    check(binaries, tmp_path)

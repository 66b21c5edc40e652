"""`train` never writes over a model that it has not begun itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from transferbench.cli.main import main

TRAIN = "train --plugin natural --target digits --set steps=2 --set batch_size=8"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN.split(), "--out", "trained"]) == 0
    return tmp_path / "trained"


def refused(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main([*TRAIN.split(), *words]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("file", ["README.md", "model.safetensors"])
def test_a_model_from_elsewhere_is_left_alone(
    trained: Path, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public = tmp_path / "public"
    public.mkdir()
    shutil.copy(trained / file, public)
    assert "a model that is not of `train` is there" in refused("--out", "public", capsys=capsys)
    assert [path.name for path in public.iterdir()] == [file]
    assert (public / file).read_bytes() == (trained / file).read_bytes()


def test_without_its_picture_only_the_same_training_goes_on(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a kill between the last commit and the picture."""
    weights = (trained / "model.safetensors").read_bytes()
    (trained / "curve.png").unlink()
    assert "settings.seed: 0 -> 1" in refused("--out", "trained", "--set", "seed=1", capsys=capsys)
    assert (trained / "model.safetensors").read_bytes() == weights
    assert main([*TRAIN.split(), "--out", "trained"]) == 0
    assert (trained / "curve.png").exists()
    # Found finished this time, and killed again.
    (trained / "curve.png").unlink()
    assert "settings.seed: 0 -> 1" in refused("--out", "trained", "--set", "seed=1", capsys=capsys)
    assert (trained / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("source", ["trained", "trained/README.md"])
def test_the_source_is_never_the_result(trained: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--source", source, "--out", "./trained", "--fresh")
    assert "this is the source's folder" in refused(*words, capsys=capsys)
    assert (trained / "model.safetensors").exists()

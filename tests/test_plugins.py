"""A package of somebody else: the one docs/extending.md describes, installed by pip and used from the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from transferbench.records import read_all

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()


def block(heading: str, language: str) -> str:
    found = re.search(rf"^## {heading}$.*?```{language}\n(.*?)```", PAGE, re.S | re.M)
    assert found is not None, heading
    return found[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip has installed the package into."""
    project, target = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("installed")
    package = project / "my_package"
    package.mkdir()
    (project / "pyproject.toml").write_text(block("From another package", "toml"))
    (package / "__init__.py").write_text("")
    (package / "weight_pull.py").write_text(block("A method", "python"))
    (package / "fgm_l2.py").write_text(block("An attack", "python"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(target),
    ]
    subprocess.run([*pip, str(project)], check=True, capture_output=True)
    return target


def ours(installed: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "transferbench.cli", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_strangers_method_and_attack_are_listed_trained_and_run(installed: Path, tmp_path: Path) -> None:
    assert re.search(r"^weight-pull +Weight pull: ", ours(installed, tmp_path, "list", "methods").stdout, re.M)
    assert re.search(r"^fgm-l2 +fast gradient method", ours(installed, tmp_path, "list", "attacks").stdout, re.M)

    short = ["--set", "steps=60", "--set", "batch_size=64"]
    natural = ours(installed, tmp_path, "train", "--plugin", "natural", "--target", "digits", *short, "--out", "source")
    assert natural.returncode == 0, natural.stderr
    trained = ours(
        installed, tmp_path, "train", "--plugin", "weight-pull", "--source", "source", "--target", "digits", *short,
        "--set", "pull=0.1", "--out", "pulled",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "pulled" / "log.csv").read_text().splitlines()[0] == "step,phase,lr,ce,pull"

    attacked = ours(
        installed, tmp_path, "eval", "--model", "pulled", "--norms", "L2", "--eps", "L2=0.6", "--attacks", "fgm-l2",
        "--n", "64", "--out", "run",
    )  # fmt: skip
    assert attacked.returncode == 0, attacked.stderr
    (record,) = read_all(tmp_path / "run")
    chain = record.chain("L2")
    assert chain is not None
    assert [part["attack"] for part in chain.by_attack] == ["fgm-l2"]
    assert chain.robust.count < record.clean.count
    assert ours(installed, tmp_path, "verify", "run").returncode == 0

    refused = ours(installed, tmp_path, "train", "--plugin", "weight-pull", "--target", "digits", "--out", "x")
    assert refused.returncode == 2
    assert "weight_pull needs a source" in refused.stderr


def test_without_the_package_it_is_not_there(tmp_path: Path) -> None:
    refused = ours(tmp_path, tmp_path, "train", "--plugin", "weight-pull", "--target", "digits", "--out", "x")
    assert refused.returncode == 2
    assert "unknown method 'weight-pull'" in refused.stderr

"""A package of somebody else: the one docs/extending.md describes, installed by pip and used from the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from transferbench.results.records import read_all

CLI = ("-m", "transferbench.cli")
PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()


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
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_strangers_method_and_attack_are_listed_trained_and_run(installed: Path, tmp_path: Path) -> None:
    assert re.search(r"^weight-pull +Weight pull: ", ours(installed, tmp_path, *CLI, "list", "methods").stdout, re.M)
    assert re.search(r"^fgm-l2 +fast gradient method", ours(installed, tmp_path, *CLI, "list", "attacks").stdout, re.M)

    # One process for all of it: most of its time is the import of torch.
    code = """
import sys
from transferbench.cli.main import main
short = ["--set", "steps=60", "--set", "batch_size=64"]
for words in (
    ["train", "--plugin", "natural", "--target", "digits", *short, "--out", "source"],
    ["train", "--plugin", "weight-pull", "--source", "source", "--target", "digits", *short, "--set", "pull=0.1",
     "--out", "pulled"],
    ["eval", "--model", "pulled", "--norms", "L2", "--eps", "L2=0.6", "--attacks", "fgm-l2", "--n", "64",
     "--out", "run"],
    ["verify", "run"],
):
    assert main(words) == 0, words
sys.exit(main(["train", "--plugin", "weight-pull", "--target", "digits", "--out", "x"]))
"""
    done = ours(installed, tmp_path, "-c", code)
    assert done.returncode == 2, done.stderr
    assert "weight-pull needs a source" in done.stderr
    assert (tmp_path / "pulled" / "log.csv").read_text().splitlines()[0] == "step,phase,lr,ce,pull"
    (record,) = read_all(tmp_path / "run")
    chain = record.chain("L2")
    assert chain is not None
    assert [part["attack"] for part in chain.by_attack] == ["fgm-l2"]
    assert chain.robust.count < record.clean.count


def test_without_the_package_it_is_not_there(tmp_path: Path) -> None:
    refused = ours(tmp_path, tmp_path, *CLI, "train", "--plugin", "weight-pull", "--target", "digits", "--out", "x")
    assert refused.returncode == 2
    assert "unknown method 'weight-pull'" in refused.stderr

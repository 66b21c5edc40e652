"""The workflow file of the public CI runs what `.ci/run` is, on the interpreters that the package names."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    return found


def test_every_interpreter_that_is_named_runs(workflow: dict[Any, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)]
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == named
    assert project["requires-python"] == f">={named[0]}"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"Python {one}" in readme for one in named)


def test_the_workflow_runs_on_changes_with_a_cache_and_pinned_actions(workflow: dict[Any, Any]) -> None:
    # YAML 1.1 reads the key `on` as True.
    assert set(workflow[True]) == {"push", "pull_request"}
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert len(used) == 2
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", one) for one in used)
    (python,) = [step["with"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert (python["cache"], python["cache-dependency-path"]) == ("pip", "pyproject.toml")


def test_the_last_step_is_the_projects_own_check(workflow: dict[Any, Any]) -> None:
    (job,) = workflow["jobs"].values()
    step = job["steps"][-1]
    assert step["run"] == ".ci/run"
    script = ROOT / step["run"]
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    targets = re.findall(r"^make (\w+)$", script.read_text(encoding="utf-8"), re.M)
    assert targets == ["lint", "docs", "test", "check"]
    # The interpreter of the matrix makes the environment.
    plan = subprocess.run(
        ["make", "--dry-run", "--always-make", f"PYTHON={step['env']['PYTHON']}", "setup"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"{step['env']['PYTHON']} -m venv .venv" in plan
    assert "'.[dev,docs]'" in plan

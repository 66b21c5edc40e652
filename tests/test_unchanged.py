"""What a restructuring must not change: plans, columns, the public signature, options. `pins.json` is from before it.

The recorded digests name every job of every suite. Differences that were made on purpose are listed here, with reasons.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import click
import pytest

from transferbench import api, suites
from transferbench.cli.main import COMMANDS, cli
from transferbench.leaderboard.columns import COST, LEADERBOARD
from transferbench.leaderboard.transfer import TRANSFER
from transferbench.scheduling.plan import plan

PINS: dict[str, Any] = json.loads(Path(__file__).with_name("pins.json").read_text())
RENAMED = {
    "pretrained_seed_eps": "pretrained_renofeation_eps",
    "pretrained_seed_asr": "pretrained_renofeation_asr",
    "noise_seed_asr": "noise_renofeation_asr",
}
"""A seed is a random seed: Renofeation's own threat is called `renofeation`, and its jobs have new names with it."""
RENAMED_THREAT = {"renofeation2020": ("craft", "judge")}


def digest(jobs: list[Any]) -> str:
    return hashlib.sha256("\n".join(job.name for job in jobs).encode()).hexdigest()


@pytest.mark.parametrize("name", PINS["plans"])
def test_every_job_has_the_name_it_had(name: str) -> None:
    suite = suites.load(name.removesuffix("-full"))
    suite = suite.in_full() if name.endswith("-full") else suite
    jobs, pinned = plan(suite, suite.seeds).jobs, PINS["plans"][name]
    assert len(jobs) == pinned["jobs"]
    for kind, before in pinned["by_kind"].items():
        same = digest([job for job in jobs if job.kind == kind]) == before
        assert same != (kind in RENAMED_THREAT.get(name, ())), kind
    if name not in RENAMED_THREAT:
        assert digest(jobs) == pinned["digest"], "the order of the plan is the same, too"


def test_the_columns_are_the_same() -> None:
    for file, columns in (("leaderboard.csv", LEADERBOARD), ("cost.csv", COST), ("transfer.csv", TRANSFER)):
        assert [column.name for column in columns] == [RENAMED.get(name, name) for name in PINS["columns"][file]]


def test_the_public_signature_is_the_same() -> None:
    parameters = inspect.signature(api.evaluate).parameters.values()
    found = [[p.name, repr(p.default) if p.default is not p.empty else "required"] for p in parameters]
    assert found == PINS["evaluate"]


def options(command: click.Command) -> dict[str, list[Any]]:
    found = {}
    for param in command.params:
        name = param.opts[-1] if isinstance(param, click.Option) else str(param.metavar).strip("[]")
        default = param.default
        if isinstance(param, click.Option) and param.multiple:
            default = []
        elif isinstance(param, click.Option) and param.is_flag:
            default = False
        elif isinstance(param, click.Argument) or type(default).__name__ == "Sentinel":
            default = None
        choices = sorted(param.type.choices) if isinstance(param.type, click.Choice) else None
        found[name] = [None if default is None else str(default), param.required, choices]
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_its_name_default_and_choices(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert options(command) == PINS["commands"][name]


def test_no_command_is_lost() -> None:
    assert set(COMMANDS) == set(PINS["commands"])

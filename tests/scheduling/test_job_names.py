"""Finished work is found by the names of its jobs: a change that renames them makes all of it run again.

After a wanted change `make pins` writes job_names.json anew, and CHANGELOG says which work is done again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from transferbench import suites
from transferbench.scheduling.plan import plan

PINNED = Path(__file__).with_name("job_names.json")


def names(suite_name: str) -> dict[str, str]:
    """For every kind of job of a suite: how many there are, and a digest of their names in order."""
    suite = suites.load(suite_name)
    kinds: dict[str, list[str]] = {}
    for job in plan(suite, suite.seeds).jobs:
        kinds.setdefault(job.kind, []).append(job.name)
    return {
        kind: f"{len(found)} {hashlib.sha256(' '.join(found).encode()).hexdigest()[:16]}"
        for kind, found in sorted(kinds.items())
    }


def planned() -> list[str]:
    return [name for name in suites.available() if suites.load(name).training]


@pytest.mark.parametrize("suite_name", planned())
def test_jobs_have_the_names_under_which_finished_work_is_stored(suite_name: str) -> None:
    assert names(suite_name) == json.loads(PINNED.read_text())[suite_name]


if __name__ == "__main__":
    PINNED.write_text(json.dumps({name: names(name) for name in planned()}, indent=1, sort_keys=True) + "\n")

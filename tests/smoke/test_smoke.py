"""--smoke: every suite's smallest self, on made data, marked for what it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from transferbench import suites
from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.jobs.attack import AttackJob
from transferbench.jobs.train import TrainJob
from transferbench.leaderboard.build import render
from transferbench.models import cards
from transferbench.results.records import UNTRAINED, read_all
from transferbench.scheduling.plan import plan
from transferbench.smoke.shorten import N, shorten
from transferbench.suites import Suite
from transferbench.workflows import run_suite
from transferbench.workflows.publish import publish

PAPERS = (
    "croce2021",
    "igam2020",
    "ramp2024",
    "renofeation2020",
    "robustssl",
    "roli2024",
    "roli2024-photographs",
    "shafahi2020",
    "shafahi2020-split",
    "twins2023",
    "twins2023-photographs",
)
REAL = ("imagenet-to-flowers", "cifar-animals-to-vehicles")
MANY = ("letters-to-digits", *REAL)
"""Suites that have nearly every method in one row: there is less to leave out."""


def used(suite: Suite) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for block in suite.training:
        found |= {("data", id) for id in (block.source_dataset, block.target_dataset) if id}
        found |= {("network", id) for id in (block.network,) if id}
        for source in block.sources:
            found |= {("method", source.method)} if source.method else {("model", source.model)}
        for row in block.rows:
            found |= {("method", row.method), *([("network", row.network)] if row.network else [])}
    return found


@pytest.mark.parametrize("name", [*PAPERS, *MANY])
def test_the_short_suite_still_uses_everything(name: str) -> None:
    suite = suites.load(name)
    short = shorten(suite)
    assert used(short) == used(suite)
    assert short.untrained
    assert short.n == N
    run_suite.check(short)
    planned = plan(short, (0,))
    assert len(planned.jobs) < len(plan(suite, (0,)).jobs) * (0.6 if name in MANY else 0.5)
    for job in planned.jobs:
        if isinstance(job, TrainJob):
            assert job.untrained
            assert 2 <= dict(job.settings)["steps"] <= 8
        for attack in job.chain.attacks if isinstance(job, AttackJob) else ():
            assert {dict(attack.params).get(budget, 2) for budget in ("n_iter", "k")} == {2}
    assert suites.load(name) == suite, "the suite itself is as it was"


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_protocols_are_all_there(name: str) -> None:
    suite = suites.load(name)
    run_suite.check(suite)
    for norm in ("Linf", "L2", "L1"):
        tries = [spec.id for spec in suite.protocol.chain(norm, suite.threats[norm]).attacks]
        assert tries == [*(["l1-screen"] if norm == "L1" else []), "apgd-ce", "apgd-t"]
    further = {chain.name for chain in suite.protocol.further}
    assert "pgd20_linf" in further
    if name == "igam2020":
        assert further == {"fgsm_linf", "pgd5_linf", "pgd10_linf", "pgd20_linf", "pgd100_linf"}
    assert suite.protocol.source_only[0].attack.id == "pretrained-neuron"
    for victim, measured in plan(suite, (0,)).evaluations:
        if measured.role == "victim":
            assert {"Linf", "L2", "L1", "pgd20_linf"} <= measured.chains.keys()
            own = {made.craft.attack.id for made in measured.crafted if made.source == victim.source}
            assert own >= {"pretrained-neuron", "random-sign"}


def test_renofeations_suite_is_five_targets_four_networks_five_methods() -> None:
    suite = suites.load("renofeation2020")
    victims = [measured for _, measured in plan(suite, (0,)).evaluations]
    few = [one for one in victims if one.victim.startswith("mit-few-")]
    assert len(victims) - len(few) == 100
    assert {block.name: (block.shots, block.shots_rule) for block in suite.training if block.shots} == {
        "mit-few": (10, "renofeation")
    }
    assert {one.dataset for one in victims} == {"flowers102", "mit67", "stanford40", "cub200", "dogs120"}
    balls = {made.craft.threat.norm for one in victims for made in one.crafted}
    assert balls == {"Linf", "renofeation"}, "clip: valid and clip: renofeation"


def smoke(name: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "transferbench.cli", "run", name, "--smoke"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def one_row(folder: Path) -> str:
    """croce2021 with one source and E-AT alone."""
    content = yaml.safe_load((Path(suites.__file__).parent / "croce2021.yaml").read_text())
    rows = content["training"]["rows"]
    content["training"]["rows"] = [row for row in rows if row["name"] == "eat"]
    content["training"]["sources"] = content["training"]["sources"][:1]
    (folder / "croce2021.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "croce2021.yaml")


@pytest.mark.parametrize(
    "name", ["one-row", *(pytest.param(name, marks=pytest.mark.slow) for name in (*PAPERS, *REAL))]
)
def test_smoke_goes_through_everything_and_makes_no_row(name: str, tmp_path: Path) -> None:
    given = one_row(tmp_path) if name == "one-row" else name
    suite = shorten(suites.load(given))
    assert "no number means anything" in smoke(given, tmp_path)
    run = tmp_path / "runs" / suite.name
    records = read_all(run)
    planned = plan(suite, (0,))
    assert {record.victim for record in records} == {measured.victim for _, measured in planned.evaluations}
    assert all(UNTRAINED in record.flags and record.n == N for record in records)
    for folder in (run / "victims").iterdir():
        assert cards.read(folder / "README.md").untrained
    assert render(records)["leaderboard.csv"].count("\n") == 1, "the header alone"
    assert "smoke run's victims are in no table" in (run / "leaderboard.md").read_text()
    (tmp_path / "leaderboards").mkdir()
    with pytest.raises(InputError, match="of a smoke run: it is never published"):
        publish(run, tmp_path)
    assert not any((tmp_path / "leaderboards").iterdir())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--cluster", "local:2"], "leave --cluster out"),
        (["--data-dir", "d"], "leave --data-dir out"),
        (["--n", "0"], "ask for at least 1 example"),
        (["--loader-workers", "-1"], "must be at least 0"),
    ],
)
def test_what_does_not_go_with_smoke_is_refused(
    words: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "croce2021", "--smoke", *words]) == 2
    assert complaint in capsys.readouterr().err
    assert not any(tmp_path.iterdir())

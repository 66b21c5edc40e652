"""A suite whose chains attack fewer examples than its other measurements: n_chains."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from support.tiny_suite import TINY, run, tiny

from transferbench import suites
from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.jobs.attack import AttackJob
from transferbench.jobs.judge import JudgeJob
from transferbench.leaderboard import comparison, source_only
from transferbench.leaderboard.measurements import union
from transferbench.results.records import Record, dump, read, read_all
from transferbench.scheduling.plan import plan

FEWER = TINY.replace("n: 24\n", "n: 24\nn_chains: 10\n")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the suite with all chains on 24 examples, the suite with the chains on 10)."""
    base = tmp_path_factory.mktemp("runs")
    for name, text in (("whole", TINY), ("fewer", FEWER)):
        (base / name).mkdir()
        run(tiny(base / name, text), base / name / "run")
    return base / "whole" / "run", base / "fewer" / "run"


def by_victim(folder: Path) -> dict[str, Record]:
    return {record.victim: record for record in read_all(folder)}


def test_the_chains_attack_the_first_of_the_n_and_all_else_is_of_all(tmp_path: Path) -> None:
    made = plan(tiny(tmp_path, FEWER), (0,))
    assert {job.images.stop for job in made.jobs if isinstance(job, AttackJob)} == {10}
    assert {job.images.stop for job in made.jobs if isinstance(job, JudgeJob)} == {24}
    assert tiny(tmp_path, FEWER).adapted(n=8).attacked_by_chains == 8
    assert tiny(tmp_path, FEWER).adapted(n=20).attacked_by_chains == 10
    with pytest.raises(InputError, match="n_chains: the chains attack some of the n examples: 25 is more than 24"):
        tiny(tmp_path, FEWER.replace("n_chains: 10", "n_chains: 25"))


def test_the_verdicts_are_the_first_of_a_run_with_all_chains(folders: tuple[Path, Path]) -> None:
    whole, fewer = map(by_victim, folders)
    assert whole.keys() == fewer.keys()
    for victim, record in fewer.items():
        other = whole[victim]
        assert (record.n, record.n_chains, other.n_chains) == (24, 10, 24)
        assert record.clean == other.clean
        assert {chain.name: chain.robust for chain in record.chains} == {
            chain.name: chain.robust.first(10) for chain in other.chains
        }
        assert [(one.attack, one.flips) for one in record.crafted] == [(one.attack, one.flips) for one in other.crafted]
        assert union(record) == union(other).first(10)  # type: ignore[union-attr]


def test_it_is_verified_and_every_rate_has_its_own_n(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(folders[1], folder)
    assert main(["verify", str(folder)]) == 0
    (row, *_) = csv.DictReader((folder / "leaderboard.csv").open())
    record = by_victim(folder)[row["victim"]]
    assert (row["n"], row["n_chains"]) == ("24", "10")
    assert row["union_acc"] == f"{100 * union(record).count / 10:.2f}"  # type: ignore[union-attr]
    assert row["clean_acc"] == f"{100 * record.clean.count / 24:.2f}"
    assert "n = 24 (chains 10) attacked examples per victim" in (folder / "leaderboard.md").read_text()
    for one in source_only.comparisons(record):
        within = record.n_chains if one.other.name == source_only.WHITE_BOX else record.n
        assert one.correct == record.clean.first(within).count
        assert max(one.attack.bits, one.other.bits).bit_length() <= within
    capsys.readouterr()
    other = next(one for one in by_victim(folder).values() if one.role == "victim" and one is not record)
    compared = comparison.compare(
        [comparison.VictimSeries(one.victim, {0: comparison.verdicts_of(one)}) for one in (record, other)]
    )
    assert {pair.column: pair.n for pair in compared.pairs} == {
        "clean": 24,
        "Linf": 10,
        "L2": 10,
        "L1": 10,
        "union": 10,
    }
    assert "the chains attacked the first 10 examples" in str(compared)


def test_a_record_that_says_otherwise_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    record = next(one for one in by_victim(folders[1]).values() if one.role == "victim")
    path = tmp_path / "record.json"
    for name, change in {
        "no job says which others are correct": {"clean_job": ""},
        "Linf has 10 verdicts, the record says n=24": {
            "chains": [record.chains[1].model_copy(update={"robust": record.clean}), record.chains[0]]
        },
    }.items():
        path.write_text(dump(record.model_copy(update=change)))
        with pytest.raises(InputError, match=name):
            read(path)


def test_another_data_set_is_read_in_the_place_of_one_that_the_suite_names(tmp_path: Path) -> None:
    suite = suites.load("cifar-animals-to-vehicles")
    copied = suite.adapted(datasets={"cifar10": "cifar10-jpeg"})
    (block,) = copied.training
    assert block.source_dataset == "cifar10-jpeg[bird,cat,deer,dog,frog,horse]"
    assert block.target_dataset == "cifar10-jpeg[airplane,automobile,ship,truck]"
    assert (
        suite.adapted(datasets={"cifar10[airplane,automobile,ship,truck]": "digits"}).training[0].target_dataset
        == "digits"
    )
    with pytest.raises(InputError, match="unknown data set of the suite 'cifar100'; did you mean 'cifar10'"):
        suite.adapted(datasets={"cifar100": "digits"})
    with pytest.raises(InputError, match="unknown data set 'cifar11'"):
        suite.adapted(datasets={"cifar10": "cifar11"})
    assert main(["run", "letters-to-digits", "--dataset", "letters", "--dry-run"]) == 2


def test_without_its_clean_images_a_victim_has_no_record(tmp_path: Path) -> None:
    """Where that job failed the chains say of too few images whether they are correct."""
    for text, enough in ((FEWER, False), (TINY, True)):
        for _, one in plan(tiny(tmp_path, text), (0,)).evaluations:
            names = {job.name for job in one.jobs()}
            assert one.has_record(names)
            assert one.has_record({job.name for shards in one.chains.values() for job in shards}) is enough

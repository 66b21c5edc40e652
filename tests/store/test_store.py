from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from transferbench.base.errors import InputError
from transferbench.base.results import CleanResult, Cost
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.jobs.attack import AttackJob
from transferbench.jobs.clean import CleanJob
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.networks import PublicNetwork
from transferbench.store.store import Store, key_of


def clean_job(stop: int) -> CleanJob:
    return CleanJob("label", PublicNetwork("x"), ImagesInput("digits", "", stop=stop))


JOB = clean_job(1)
RESULT = CleanResult(3, 4, Cost(checks=4))


def test_a_finished_job_is_found_again_and_only_by_its_key(tmp_path: Path) -> None:
    key = key_of(JOB, {"weights": "x"})
    with Store(tmp_path) as store:
        assert store.find(JOB, key) is None
        store.finish(key, JOB, {"weights": "x"}, RESULT)
    with Store(tmp_path) as store:
        assert store.find(JOB, key) == replace(RESULT, key=key)
        for other in ({"weights": "y"}, {"weights": "x", "device": "cuda"}, {}):
            assert store.find(JOB, key_of(JOB, other)) is None
        assert store.find(JOB, key_of(clean_job(2), {"weights": "x"})) is None


def test_a_result_of_another_kind_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.finish("k", JOB, {}, RESULT)
    with sqlite3.connect(tmp_path / "store.sqlite3") as db:
        db.execute('UPDATE jobs SET result = \'{"correct": "many"}\'')
    db.close()
    with Store(tmp_path) as store, pytest.raises(InputError, match="job k: the store's result is damaged"):
        store.find(JOB, "k")


def test_a_second_driver_is_refused_and_a_dead_one_leaves_no_lock(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(InputError, match="another transferbench"):
        Store(tmp_path)
    with Store(tmp_path):
        pass


def test_a_store_whose_creation_was_cut_off_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").write_bytes(b"")
    with Store(tmp_path) as store:
        assert store.find(JOB, "x") is None


def test_what_is_no_store_is_left_alone(tmp_path: Path) -> None:
    content = b"not a database at all, but long enough to look like a file that somebody needs"
    (tmp_path / "store.sqlite3").write_bytes(content)
    with pytest.raises(InputError, match="left alone"):
        Store(tmp_path)
    assert (tmp_path / "store.sqlite3").read_bytes() == content


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "store.sqlite3") as db:
        db.execute("UPDATE meta SET value = '99'")
    db.close()
    with pytest.raises(InputError, match="schema 99"):
        Store(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="cannot write there"):
        Store(blocked / "run")
    if os.getuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(InputError, match="cannot write there"):
            Store(tmp_path / "run")


def test_examples_come_back_or_are_refused(tmp_path: Path) -> None:
    points = {"points": torch.rand(3, 1, 8, 8)}
    with Store(tmp_path) as store:
        written = store.write_examples("k", points)
        assert torch.equal(store.read_examples(written)["points"], points["points"])
        assert [path.name for path in (tmp_path / "examples").iterdir()] == ["k.safetensors"]
        file = tmp_path / written.path
        damaged = bytearray(file.read_bytes())
        damaged[-1] ^= 1
        file.write_bytes(bytes(damaged))
        with pytest.raises(InputError, match="changed since"):
            store.read_examples(written)


def test_a_job_of_another_seed_is_no_changed_job(tmp_path: Path) -> None:
    """A fresh run of two seeds repeats nothing; with the same seed the change is named."""
    chain = Chain("Linf", ThreatModel.parse("Linf", "0.1"), (AttackSpec.of("apgd-ce"),))
    images = ImagesInput("digits", "", 0, 8)
    job = AttackJob("x: Linf", PublicNetwork("x"), images, chain, 0, "transferbench", images)
    with Store(tmp_path) as store:
        store.finish("k", job, {"weights": "w"}, RESULT)
        assert store.changes(replace(job, seed=1), {"weights": "w"}) == []
        assert store.changes(replace(job, seed=1), {"weights": "v"}) == []
        assert store.changes(job, {"weights": "v"}) == ["weights: w -> v"]


def test_a_store_of_before_gets_the_indexes_and_no_look_up_reads_all_jobs(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.finish("k", JOB, {}, RESULT)
    with sqlite3.connect(tmp_path / "store.sqlite3") as db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall():
            db.execute(f"DROP INDEX {name}")
    db.close()
    with Store(tmp_path) as store:
        assert store.finished() == {JOB.name}
    asked = {
        "SELECT specification FROM jobs WHERE kind = 'x' AND label = 'y'": "jobs_by_label",
        "SELECT DISTINCT name FROM jobs": "jobs_by_name",
        "UPDATE plan SET state = 'done' WHERE name = 'x'": "plan_by_name",
    }
    with sqlite3.connect(tmp_path / "store.sqlite3") as db:
        for statement, index in asked.items():
            (row,) = db.execute(f"EXPLAIN QUERY PLAN {statement}")
            assert index in row[-1]
    db.close()

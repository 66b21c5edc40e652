"""A run is made once; every way of falsifying a copy of it must be found, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_suite import run_tiny

from transferbench.base.atomic_files import sha256_of
from transferbench.base.results import Verdict
from transferbench.base.specifications import Keep
from transferbench.cli.main import main
from transferbench.results import verification
from transferbench.results.records import dump, read, stamped


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify") / "out"
    make(root)
    return root


def make(root: Path, **more: Any) -> None:
    run_tiny(root, **more)


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_as_it_is_holds_and_is_stamped(run: Path) -> None:
    told = []
    assert verification.verify(run, on_verified=lambda record, tally: told.append((record.victim, tally))) == []
    tallies = dict(told)
    assert set(tallies) == {"letters-natural-s0", "probe-s0", "finetune-s0"}
    for path in (run / "records").glob("*.json"):
        record = read(path)
        assert stamped(record)
        assert record.stamp is not None
        assert record.stamp.points == tallies[record.victim].points > 20
        assert (record.stamp.changed_ties, record.stamp.disagreements) == (0, 0)
        for name, digest in record.stamp.examples.items():
            assert sha256_of(run / name) == digest
    before = {path: path.read_bytes() for path in (run / "records").iterdir()}
    assert verification.verify(run) == []
    assert before == {path: path.read_bytes() for path in (run / "records").iterdir()}


def test_a_run_that_is_repeated_keeps_its_stamps(run: Path) -> None:
    assert verification.verify(run) == []
    make(run)
    assert all(stamped(read(path)) for path in (run / "records").glob("*.json"))


def change_result(run: Path, kind: str, change: Callable[[dict[str, Any]], object], label: str = "finetune") -> None:
    """Falsify one finished job's result in the database."""
    with sqlite3.connect(run / "store.sqlite3") as db:
        rows = db.execute(
            "SELECT key, result FROM jobs WHERE kind = ? AND label LIKE ? ORDER BY rowid", (kind, f"%{label}%")
        ).fetchall()
        key, text = rows[0]
        result = json.loads(text)
        change(result)
        db.execute("UPDATE jobs SET result = ? WHERE key = ?", (json.dumps(result), key))


def change_record(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = run / "records" / "finetune-s0.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def first_points(run: Path) -> Path:
    (row,) = sqlite3.connect(run / "store.sqlite3").execute("SELECT result FROM jobs WHERE label = 'finetune-s0: Linf'")
    return run / json.loads(row[0])["examples"]["path"]


def flip_byte(run: Path) -> None:
    path = first_points(run)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def rewrite_points(run: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """A forger who also mends the hash."""
    path = first_points(run)
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    change_result(run, "attack", lambda result: result["examples"].update(sha256=sha256_of(path)), "finetune-s0: Linf")


def verdict(name: str, value: Any, where: Callable[[str], bool]) -> Callable[[Path], None]:
    """Change a column of the first verdict whose attack is as asked."""

    def change(result: dict[str, Any]) -> None:
        row = next(row for row in result["verdicts"] if where(row[Verdict._fields.index("attack")]))
        column = Verdict._fields.index(name)
        row[column] = value(row[column]) if callable(value) else value

    return lambda run: change_result(run, "attack", change, "finetune-s0: Linf")


def attacked(attack: str) -> bool:
    return attack not in ("", "clean")


def spoil_weights(run: Path) -> None:
    path = run / "victims" / "finetune-s0" / "model.safetensors"
    state = load_file(path)
    state["head.weight"] = -state["head.weight"]
    save_file(state, path)


def spoil_weights_and_card(run: Path) -> None:
    before = sha256_of(run / "victims" / "finetune-s0" / "model.safetensors")
    spoil_weights(run)
    card = run / "victims" / "finetune-s0" / "README.md"
    card.write_text(card.read_text().replace(before, sha256_of(card.with_name("model.safetensors"))))


def spoil_table(run: Path) -> None:
    path = run / "leaderboard.csv"
    lines = path.read_text().splitlines()
    at = next(place for place, line in enumerate(lines) if ",finetune," in line)
    cells = lines[at].split(",")
    cells[lines[0].split(",").index("union_acc")] = "99.99"
    lines[at] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")


def spoil_bits(record: dict[str, Any]) -> None:
    chain = record["chains"][1]["robust"]
    chain["hex"] = f"{int(chain['hex'], 16) ^ int(record['clean']['hex'], 16):0{len(chain['hex'])}x}"
    record["chains"][1]["files"] = []


def name_twice(run: Path) -> None:
    def change(result: dict[str, Any]) -> None:
        result["verdicts"][0][0] = result["verdicts"][1][0]

    change_result(run, "attack", change, "finetune-s0: L2")


def forget_job(run: Path) -> None:
    with sqlite3.connect(run / "store.sqlite3") as db:
        db.execute("DELETE FROM jobs WHERE label = 'finetune-s0: L2'")


def empty_crafted(record: dict[str, Any]) -> None:
    """A source-only attack that was judged on nothing, and so flips nothing."""
    for crafted in record["crafted"]:
        crafted["jobs"], crafted["files"] = [], []
        for bits in crafted["flips"]:
            bits["hex"] = "0" * len(bits["hex"])


def take_try(record: dict[str, Any]) -> None:
    record["crafted"][0]["flips"].pop()
    record["crafted"][0]["files"] = []


def empty_file(record: dict[str, Any]) -> None:
    bits = record["chains"][0]["files"][0]["fooling"]
    assert int(bits["hex"], 16), "no point fools as a file: nothing would be forged"
    bits["hex"] = "0" * len(bits["hex"])


def spoil_files(run: Path) -> None:
    """Fewer points that still fool, in the record and in the store."""

    def forget(result: dict[str, Any]) -> None:
        result["files"][0]["fooling"] = [False] * len(result["files"][0]["fooling"])

    change_record(run, empty_file)
    change_result(run, "attack", forget, "finetune-s0: Linf")


FORGERIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "crafted sets without jobs": (lambda run: change_record(run, empty_crafted), "not judged exactly once"),
    "a try less": (
        lambda run: change_record(run, take_try),
        "tries, the store",
    ),
    "image files that were not judged": (
        lambda run: change_record(run, lambda record: record["chains"][0].update(files=[])),
        "image files are not the store's",
    ),
    "an image file in the record": (
        lambda run: change_record(run, empty_file),
        "8bit files, fooling",
    ),
    "image files in record and store": (spoil_files, "8bit files: .* predictions are others"),
    "a flag": (lambda run: change_record(run, lambda record: record["flags"].append("randomised")), "flags"),
    "a seed": (lambda run: change_record(run, lambda record: record.update(seed=5)), "another seed"),
    "a batch": (lambda run: change_record(run, lambda record: record.update(batch=64)), "its batch is None"),
    "class counts": (
        lambda run: change_record(run, lambda record: record["class_counts"].reverse()),
        "class counts",
    ),
    "passes of an attack": (
        lambda run: change_record(run, lambda record: record["chains"][0]["by_attack"][0].update(tries=99)),
        "tries by attack",
    ),
    "counts of draws": (
        lambda run: change_record(
            run,
            lambda record: record["chains"][0].update(draws={"eot": [20], "draws": 20, "robust": [1], "single": 0}),
        ),
        "counts of draws",
    ),
    "a byte of an example": (flip_byte, "missing or changed"),
    "an example file": (lambda run: first_points(run).unlink(), "missing or changed"),
    "a point outside the ball": (
        lambda run: rewrite_points(run, lambda t: t["points"][0].add_(0.01).clamp_(0, 1)),
        "outside the Linf ball|recorded distance|predictions are others",
    ),
    "a point outside the box": (lambda run: rewrite_points(run, lambda t: t["points"][0].add_(-2)), "outside"),
    "a point that is no number": (lambda run: rewrite_points(run, lambda t: t["points"][0].fill_(np.nan)), "finite"),
    "no change at all": (
        lambda run: rewrite_points(run, lambda t: t["points"].mul_(0)),
        "outside the Linf ball|recorded distance",
    ),
    "a missing end point": (
        lambda run: rewrite_points(run, lambda t: t.update({name: part[1:] for name, part in t.items()})),
        "no end point for example",
    ),
    "a verdict robust that was fooled": (verdict("fooled", False, attacked), "fooled by nothing"),
    "a verdict fooled that was robust": (verdict("fooled", True, lambda a: a == ""), "fooled by nothing"),
    "a survivor that was wrong on clean": (
        verdict("attack", "", lambda a: a == "clean"),
        "fooled by nothing|contradict",
    ),
    "another prediction": (verdict("pred", lambda pred: (pred + 1) % 10, attacked), "predictions are others|the label"),
    "another clean prediction": (
        verdict("pred", lambda pred: (pred + 1) % 10, lambda a: a == ""),
        "predictions are others",
    ),
    "a distance": (verdict("distance", lambda d: d / 2, attacked), "recorded distance"),
    "a tie": (verdict("tie", True, attacked), "ties"),
    "an example twice": (name_twice, "more than one verdict"),
    "the count of an attack": (
        lambda run: change_record(run, lambda r: r["chains"][0]["by_attack"][0].update(broke=99)),
        "broken, the verdicts say",
    ),
    "the passes": (lambda run: change_record(run, lambda r: r["chains"][0].update(forwards=1)), "forwards"),
    "the bits of a chain": (lambda run: change_record(run, spoil_bits), "bits are not the verdicts'|wrong on clean"),
    "the radius": (lambda run: change_record(run, lambda r: r["chains"][0].update(eps="0.2")), "not the record's"),
    "the clean accuracy of the split": (
        lambda run: change_record(run, lambda r: r.update(clean_full=[1, r["clean_full"][1]])),
        "whole split",
    ),
    "a flip of the source-only attack": (
        lambda run: change_result(
            run, "judge", lambda r: r["flips"][0].__setitem__(slice(None), [not flip for flip in r["flips"][0]])
        ),
        "predictions are others|wrong on clean",
    ),
    "the weights": (spoil_weights, "sha256"),
    "the weights and their card": (spoil_weights_and_card, "not the record's"),
    "a cell of the table": (spoil_table, "union_acc = 99.99"),
    "a job that is gone": (forget_job, "not in the store"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_found_and_not_stamped(name: str, run: Path) -> None:
    forge, complaint = FORGERIES[name]
    forge(run)
    complaints = verification.verify(run)
    assert len(complaints) == 1, complaints
    assert complaints[0].startswith("finetune-s0: ")
    assert re.search(complaint, complaints[0]), complaints[0]
    assert [path.stem for path in sorted((run / "records").glob("*.json")) if stamped(read(path))] == [
        "letters-natural-s0",
        "probe-s0",
    ]


def test_other_data_are_noticed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = verification.data.load

    def other(*words: Any) -> Any:
        dataset = load(*words)
        return replace(dataset, images=1 - dataset.images)

    monkeypatch.setattr(verification.data, "load", other)
    assert all("fingerprint" in complaint for complaint in verification.verify(run))


def test_the_command_ends_with_status_1_where_something_does_not_hold(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(run)]) == 0
    assert "end points and all counts hold" in capsys.readouterr().out
    flip_byte(run)
    assert main(["verify", str(run)]) == 1
    assert "finetune-s0: " in capsys.readouterr().err


@pytest.mark.parametrize("keep", ["none", pytest.param("sample:1", marks=pytest.mark.slow)])
def test_without_its_end_points_nothing_can_be_verified(keep: str, tmp_path: Path) -> None:
    make(tmp_path / "out", keep=Keep.parse(keep))
    complaints = verification.verify(tmp_path / "out")
    assert len(complaints) == 3
    assert all("kept" in complaint for complaint in complaints)
    # What was kept too little of is attacked again when more is wanted, and only that.
    again = run_tiny(tmp_path / "out", keep=Keep("all"))
    assert {job.kind for job in again.run} == {"attack"}
    assert verification.verify(tmp_path / "out") == []
    files = {path.name: load_file(path) for path in (tmp_path / "out" / "examples").iterdir()}
    assert all(len(tensors["ids"]) == 24 for tensors in files.values())


def test_a_tie_may_fall_the_other_way_and_is_counted(whole: Path) -> None:
    check: Any = object.__new__(verification._RecordVerifier)
    check.counts, check.record = verification.VerificationCounts(), read(whole / "records" / "probe-s0.json")
    logits = np.array([[1.0, 1.00001, -4.0], [1.0, 3.0, -4.0]], dtype=np.float32)
    check._differ("here", logits, np.array([True, False]))
    assert (check.counts.changed_ties, check.counts.disagreements) == (1, 0)
    with pytest.raises(verification.VerificationError, match="1 predictions are others"):
        check._differ("here", logits, np.array([True, True]))
    check.record = check.record.model_copy(update={"flags": ["randomised"]})
    check.counts = verification.VerificationCounts()
    check._differ("here", logits, np.array([True, True]))
    assert (check.counts.changed_ties, check.counts.disagreements) == (1, 1)


@pytest.mark.parametrize(("norm", "size"), [("Linf", 0.1), ("L2", 0.1 * 12**0.5), ("L1", 1.2)])
def test_the_ball_by_hand(norm: str, size: float) -> None:
    images = np.full((1, 3, 2, 2), 0.5, dtype=np.float32)
    points = images + np.float32(0.1)
    (distance,) = verification.admissible("here", norm, repr(size * 1.00001), images, points)
    assert distance == pytest.approx(size, rel=1e-6)
    with pytest.raises(verification.VerificationError, match="outside the"):
        verification.admissible("here", norm, repr(size * 0.9999), images, points)
    assert verification.admissible("here", norm, "0.1", images[:0], points[:0]).shape == (0,)


def test_a_changed_record_loses_its_stamp(run: Path) -> None:
    verification.verify(run)
    record = read(run / "records" / "probe-s0.json")
    assert not stamped(record.model_copy(update={"seed": 7}))
    assert dump(record) == (run / "records" / "probe-s0.json").read_text()

"""Sets and queries of an attacker who holds the source: a run as it is holds, and every falsified copy is found."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_suite import run_tiny

from transferbench.base.atomic_files import sha256_of
from transferbench.data import load
from transferbench.results import verification
from transferbench.results.records import read, read_all, stamped

# Two attacks that make the same points, because the copies of source-di are one in a billion; two sources, whose random
# signs are the same file.
SUITE = """
name: tiny
title: attacks that hold the source
n: 16
threats: {Linf: "0.4"}
protocol:
  description: "tiny"
  chains:
    Linf: [{id: fgsm}]
  source_only:
    eps: "0.4"
    attack: {id: source-mi, n_iter: 3}
    control: {id: random-sign, draws: 3}
    also: [{id: source-di, n_iter: 3, probability: 1.0e-9}, "x-transfer:steps=2:batch=4"]
    queries: ["square-start:queries=12", "simba-ods:queries=1"]
    every_source: true
training:
  network: small-resnet
  source_dataset: letters
  attack_sources: false
  target_dataset: digits
  sources:
    - {name: natural, method: natural, set: {steps: 30, batch_size: 128}}
    - {name: short, method: natural, set: {steps: 10, batch_size: 128}}
  rows:
    - {name: finetune, method: finetune, source: natural, set: {steps: 20, lr: 0.02}}
    - {name: other, method: finetune, source: short, set: {steps: 2, lr: 0.02}}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source-only") / "out"
    run_tiny(root, text=SUITE)
    return root


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def test_equal_sets_of_two_attacks_and_queries_that_fool_nobody_hold(run: Path) -> None:
    record = read(run / "records" / "finetune-s0.json")
    points = {(one.attack["id"], one.attack.get("of")): one for one in record.crafted}
    assert points["source-mi", None].flips == points["source-di", None].flips
    assert {one.attack["id"] for one in record.queried if max(one.queries) < 1} == {"simba-ods"}
    assert {one.attack["id"] for one in record.queried if max(one.queries) > 0} == {"square-start"}
    assert verification.verify(run) == []
    assert stamped(read(run / "records" / "finetune-s0.json"))


def test_clean_images_pass_once_for_all_sets_of_a_record(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[bytes] = []
    logits = verification._RecordVerifier._logits

    def counted(verifier: verification._RecordVerifier, images: Any) -> Any:
        rows.extend(image.tobytes() for image in images)
        return logits(verifier, images)

    monkeypatch.setattr(verification._RecordVerifier, "_logits", counted)
    assert verification.verify(run) == []
    sets = [len(record.crafted) for record in read_all(run)]
    assert min(sets) > 10
    # Once for all verdicts, once for the clean accuracy on the whole split.
    first = load("digits", "test").first(1).pixels.numpy()[0]
    assert rows.count(first.tobytes()) == 2 * len(sets)


def in_record(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def forge(run: Path) -> None:
        path = run / "records" / "finetune-s0.json"
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))

    return forge


def in_store(run: Path, label: str, change: Callable[[dict[str, Any]], object]) -> None:
    with sqlite3.connect(run / "store.sqlite3") as db:
        ((key, text),) = db.execute("SELECT key, result FROM jobs WHERE label = ?", (label,)).fetchall()
        result = json.loads(text)
        change(result)
        db.execute("UPDATE jobs SET result = ? WHERE key = ?", (json.dumps(result), key))


def queries(record: dict[str, Any], id: str, control: bool = False) -> dict[str, Any]:
    return next(one for one in record["queried"] if (one["attack"]["id"], one["is_control"]) == (id, control))


def swap_controls(record: dict[str, Any]) -> None:
    for one in record["queried"]:
        one["is_control"] = not one["is_control"]


def one_more(record: dict[str, Any]) -> list[int]:
    """Numbers that count another first query as fooling."""
    numbers: list[int] = list(queries(record, "simba-ods")["queries"])
    numbers[numbers.index(-1)] = 1
    return numbers


def change_number(change: Callable[[int], int], where: Callable[[int], bool]) -> Callable[[Path], None]:
    """A number of queries in the record and in the store alike."""

    def forge(run: Path) -> None:
        def of(numbers: list[int]) -> None:
            place = next(place for place, number in enumerate(numbers) if where(number))
            numbers[place] = change(numbers[place])

        in_record(lambda record: of(queries(record, "square-start")["queries"]))(run)
        in_store(run, "finetune-s0: square-start", lambda result: of(result["queries"]))

    return forge


def rewrite(label: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Other tensors, by a forger who also mends the hash in the job's result."""

    def forge(run: Path) -> None:
        def of(result: dict[str, Any]) -> None:
            path = run / result["examples"]["path"]
            tensors = load_file(path)
            change(tensors)
            save_file({name: part.contiguous() for name, part in tensors.items()}, path)
            result["examples"]["sha256"] = sha256_of(path)

        in_store(run, label, of)

    return forge


FORGERIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "control and attack": (in_record(swap_controls), "is the control"),
    "where it began": (
        in_record(lambda record: queries(record, "square-start").update(start="x-transfer")),
        "did not begin",
    ),
    "that it began somewhere": (
        in_record(lambda record: queries(record, "simba-ods").update(start="source-mi")),
        "did not begin",
    ),
    "the budget": (in_record(lambda record: queries(record, "square-start").update(budget=500)), "budget"),
    "a first query that fooled": (change_number(lambda _: 1, lambda number: number > 1), "first query"),
    "a first query that did not": (change_number(lambda _: 2, lambda number: number == 1), "first query"),
    "an example that was not fooled": (change_number(lambda _: -1, lambda number: number > 1), "not those"),
    "a count of the record": (
        in_record(lambda record: queries(record, "simba-ods").update(queries=one_more(record))),
        "numbers of queries",
    ),
    "the attacker's images": (
        in_record(lambda record: [one.pop("attacker_images", None) for one in record["crafted"]]),
        "other images",
    ),
    "a queried point outside the ball": (
        rewrite("finetune-s0: square-start", lambda t: t["points"].copy_((t["points"] + 0.4).clamp(0, 1))),
        "outside the Linf ball",
    ),
    "a delta": (
        rewrite("letters-natural-s0: x-transfer", lambda t: t["deltas"].mul_(-1)),
        "not in the store",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_found_and_not_stamped(name: str, run: Path) -> None:
    forge, complaint = FORGERIES[name]
    forge(run)
    # A forged delta is shown to both victims.
    found = next(line for line in verification.verify(run) if line.startswith("finetune-s0: "))
    assert found.startswith("finetune-s0: ")
    assert re.search(complaint, found), found
    assert not stamped(read(run / "records" / "finetune-s0.json"))

"""What a record says of its training: the preset and its method, what it adds to, the passes; and older records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.records import record
from support.tiny_suite import run, tiny

from transferbench import methods
from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.results.records import digest, dump, read
from transferbench.workflows import run_suite

SUITE = """
name: tiny
title: one preset
n: 4
threats: {Linf: "0.1"}
protocol:
  description: "tiny"
  chains: {Linf: [{id: apgd-ce, n_iter: 2, restarts: 1}]}
training:
  target_dataset: digits
  sources: [{name: public, model: letters-natural}]
  rows:
    - {name: slf, method: slf, source: public, set: {steps: 4, batch_size: 32}}
    - {name: head, method: madry, source: public, set: {steps: 2, batch_size: 32, k: 2, eps: "0.1", tune: head}}
"""


def test_a_record_says_which_plugin_and_preset_made_it_and_what_it_cost(tmp_path: Path) -> None:
    records = {one.victim: one for one in run(tiny(tmp_path, SUITE), tmp_path / "out")[0]}
    slf, head = records["slf-s0"], records["head-s0"]
    assert (slf.method, slf.preset_of, slf.extends) == ("slf", "probe", ["probe"])
    assert (head.method, head.preset_of, head.extends, head.variant) == ("madry", "", ["finetune"], {"tune": "head"})
    # Four steps of 32 images; two, in each k steps of PGD and the loss.
    assert (slf.train_forwards, slf.train_backwards) == (4 * 32, 4 * 32)
    assert (head.train_forwards, head.train_backwards) == (3 * 2 * 32, 3 * 2 * 32)
    header, *rows = (tmp_path / "out" / "leaderboard.csv").read_text().splitlines()
    place = header.split(",").index("preset_of")
    assert {row.split(",")[place] for row in rows} == {"", "probe"}


def test_an_older_record_keeps_its_bytes_and_its_stamp(tmp_path: Path) -> None:
    """The fields that came later are not in its file."""
    one = record()
    text = dump(one)
    assert not {"preset_of", "extends", "variant", "train_forwards"} & set(json.loads(text))
    (tmp_path / "r.json").write_text(text)
    assert digest(read(tmp_path / "r.json")) == digest(one)
    newer = one.model_copy(update={"preset_of": "probe", "variant": {"tune": "lora"}, "train_forwards": 0})
    (tmp_path / "r.json").write_text(dump(newer))
    assert read(tmp_path / "r.json") == newer


@pytest.mark.parametrize("id", list(registry.entries("methods")))
def test_every_method_extends_methods_that_exist_and_ends_at_a_baseline(id: str) -> None:
    method = methods.build(id, {})
    ids = methods.lineage(method)
    assert id not in ids
    assert all(registry.find("methods", other) for other in ids)
    assert (ids[:1] == [registry.preset_of(registry.find("methods", id))]) or not registry.preset_of(
        registry.find("methods", id)
    )
    assert method.variant == {}, "its own settings are no variant"
    if ids:
        assert methods.build(ids[-1], {}).extends == ""


def test_lineages_of_the_papers() -> None:
    assert methods.lineage(methods.build("ramp", {}))[0] == "eat"
    assert methods.lineage(methods.build("twins", {}))[0] == "madry"
    assert methods.lineage(methods.build("twins", {"form": "trades"})) == ["trades", "madry", "finetune"]
    assert methods.lineage(methods.build("renofeation", {})) == ["delta-r", "delta", "finetune"]
    assert methods.lineage(methods.build("aff", {"bn": "shared"})) == ["trades", "madry", "finetune"]
    assert methods.build("aff", {"bn": "shared"}).variant == {"bn": "shared"}
    assert methods.build("madry", {"eps_schedule": "linear", "tune": "bias"}).variant == {
        "eps_schedule": "linear",
        "tune": "bias",
    }


def test_a_method_that_extends_nothing_known_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.find("methods", "madry").load().Method, "extends", "finetine")
    with pytest.raises(InputError, match="unknown method 'finetine'; did you mean 'finetune'"):
        run_suite.check(tiny(tmp_path, SUITE))

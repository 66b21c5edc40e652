"""Presets: another setting of a method under a name of its own, in the command, in suites and on cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.trainings import SHORT, settings

from transferbench import data, methods, suites
from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.models import cards
from transferbench.training import loop
from transferbench.training.victim import Recipe, train_victim
from transferbench.workflows import default_task
from transferbench.workflows.train import TrainingRequest

PRESETS = {id: of for id, entry in registry.entries("methods").items() if (of := registry.preset_of(entry))}


def test_which_presets_there_are() -> None:
    guide = {"fft-5", "fft-50", "lp-50"}
    expected = {"slf": "probe", "alf": "madry", "aff": "trades", **dict.fromkeys(guide, "apgd-at")}
    assert expected | {f"{id}-trades": "trades" for id in guide} == PRESETS
    assert registry.preset_of(registry.find("methods", "probe")) == ""


@pytest.mark.parametrize("id", PRESETS)
def test_a_preset_changes_its_own_settings_alone(id: str) -> None:
    """What is said in its file, over the method's defaults; what the user sets goes over both."""
    module = registry.find("methods", id).load()
    found, plain = methods.build(id, {}), methods.build(PRESETS[id], {})
    assert type(found) is type(plain)
    assert found.id == id
    given = module.PRESETS[id]
    for name in vars(plain.params):
        assert getattr(found.params, name) == given.get(name, getattr(plain.params, name)), name
    assert all(getattr(plain.params, name) != value for name, value in given.items()), "nothing is said twice"
    assert methods.build(id, {"steps": 7, "lr": "0.5"}).params.lr == 0.5
    with pytest.raises(InputError, match=f"hyper-parameter of {id}"):
        methods.build(id, {"stps": 7})


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        # RobustSSL: 25 epochs on CIFAR-10, of 512 and 128 images of 50000.
        ("slf", {"steps": 25 * 98, "lr": 0.01, "momentum": 0.9, "weight_decay": 2e-4, "head_init": "zero"}),
        ("alf", {"steps": 25 * 98, "tune": "head", "k": 10, "step_size": 0.25, "eps": "8/255", "weight_decay": 2e-4}),
        ("aff", {"steps": 25 * 391, "batch_size": 128, "lr": 0.1, "beta": 6.0, "bn": "dual", "inner": "kl", "k": 10}),
        # The Guide: APGD-10 at 4/255 on the cross-entropy, TRADES with beta 1, AdamW with betas .9 and .95.
        ("fft-5", {"l_norms": "Linf", "l_eps": "4/255", "at_iter": 10, "tune": "all", "optimiser": "adamw"}),
        ("lp-50", {"l_eps": "4/255", "tune": "head", "momentum": 0.9, "beta2": 0.95, "batch_size": 1024}),
        ("fft-50-trades", {"eps": "4/255", "k": 10, "beta": 1.0, "inner": "apgd-ce", "tune": "all"}),
        ("lp-50-trades", {"eps": "4/255", "beta": 1.0, "inner": "apgd-ce", "tune": "head"}),
    ],
)
def test_presets_have_the_papers_values(id: str, expected: dict[str, Any]) -> None:
    params = methods.build(id, {}).params
    assert {name: getattr(params, name) for name in expected} == expected


def test_crops_of_a_preset_are_not_refused_where_nothing_is_cropped() -> None:
    """Digits are not augmented: a preset's own padding is a default, another one is an option without an effect."""
    digits = data.load("digits", "train")
    loop.check(methods.build("slf", SHORT), True, digits)
    with pytest.raises(InputError, match="crop_padding=2"):
        loop.check(methods.build("slf", {**SHORT, "crop_padding": 2}), True, digits)
    with pytest.raises(InputError, match="slf needs a source"):
        loop.check(methods.build("slf", SHORT), False, digits)


def test_a_card_names_the_preset_and_its_method(small_victim: Any, tmp_path: Path) -> None:
    splits = data.load("digits", "train"), data.load("digits", "val")
    _, card, _ = train_victim(
        Recipe("v", "alf", "digits", ""), methods.build("alf", settings("alf")), small_victim, splits
    )
    assert (card.method, card.preset_of, card.head) == ("alf", "madry", "new")
    assert card.params["tune"] == "head"
    (tmp_path / "README.md").write_text(cards.write(card))
    read = cards.read(tmp_path / "README.md")
    assert read.preset_of == "madry"
    assert "with `alf`, a setting of `madry`, on" in read.text
    _, plain, _ = train_victim(
        Recipe("v", "madry", "digits", ""), methods.build("madry", settings("madry")), small_victim, splits
    )
    assert "preset_of" not in cards.write(plain)


def test_a_preset_is_trained_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "steps=3", "--set", "batch_size=32", "--set", "k=1", "--out", str(tmp_path / "v")]
    assert main(["train", "--plugin", "alf", *words]) == 0
    assert cards.read(tmp_path / "v" / "README.md").preset_of == "madry"
    capsys.readouterr()
    main(["list", "methods"])
    assert "SLF of RobustSSL" in capsys.readouterr().out


def test_the_default_task_has_settings_of_every_method_that_fit_its_images() -> None:
    digits = data.load("digits", "train")
    for id in registry.entries("methods"):
        request, _ = default_task.completed(TrainingRequest(id, ""))
        params = methods.build(id, dict(request.settings)).params
        loop.check(methods.build(id, dict(request.settings)), True, digits)
        assert params.steps <= 1000, id


def test_a_suite_may_name_a_preset(tmp_path: Path) -> None:
    text = """
name: mine
title: a preset
n: 4
threats: {Linf: "0.1"}
protocol: {description: short, chains: {Linf: [{id: apgd-ce, n_iter: 2}]}}
training:
  target_dataset: digits
  sources: [{name: letters, model: letters-madry}]
  rows: [{name: head, method: slf, set: {steps: 2}}]
"""
    (tmp_path / "mine.yaml").write_text(text)
    assert suites.load(str(tmp_path / "mine.yaml")).training[0].rows[0].method == "slf"


def test_a_zero_head_begins_at_the_same_answer_for_every_image(small_victim: Any) -> None:
    from transferbench.methods import Network

    source = Network(small_victim.model, small_victim.layers)
    for id in ("slf", "alf", "aff"):
        model = methods.build(id, settings(id)).student(source, lambda: source, 10).model
        assert not model(torch.rand(3, 1, 8, 8)).any()

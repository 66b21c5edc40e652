"""Whether the source's classifier is kept, and what inner attacks' values are refused before anything runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.trainings import SHORT, method_ids, settings
from torch import nn

from transferbench import data, methods
from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.data import Dataset
from transferbench.models.cards import ModelCard
from transferbench.models.features import Layers
from transferbench.models.victim import Victim
from transferbench.training.victim import Recipe, keeps_head, train_victim

METHODS = method_ids()
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
KEEPING = ("finetune", "probe", "unfreeze", "lwf", "l2sp", "delta", "madry", "trades", "free", "eat", "apgd-at", "sat")
STARTING_ANEW = ("natural", "scratch", "retrain", "delta-r", "renofeation")


@pytest.fixture
def digits() -> tuple[Dataset, Dataset]:
    """Digits with words as class names."""
    train, val = data.load("digits", "train"), data.load("digits", "val")
    return replace(train, classes=NAMES), replace(val, classes=NAMES)


def named(victim: Any, classes: tuple[str, ...], dataset: str = "digits") -> Victim:
    """The small victim, whose card says that its classes are these."""
    card = victim.card.model_copy(update={"classes": classes, "dataset": dataset})
    return Victim(card, victim.model, victim.layers, victim.sha256)


@pytest.fixture
def ten(small_victim: Any) -> Victim:
    """A victim with ten classes, named as those of `digits`."""
    model: Any = type(small_victim.model)(10)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter)
    victim = Victim(small_victim.card, model.eval().requires_grad_(False), small_victim.layers, "")
    return named(victim, NAMES, "other")


def keeps(id: str, source: Victim | None, train: Dataset, **given: Any) -> bool:
    return keeps_head(methods.build(id, {**settings(id), **given}), source, train)


@pytest.mark.parametrize("id", KEEPING)
def test_the_same_names_in_the_same_order_keep_the_classifier(id: str, ten: Victim, digits: Any) -> None:
    assert keeps(id, ten, digits[0])
    assert keeps(id, ten, digits[0], new_head="no")
    assert not keeps(id, ten, digits[0], new_head="yes")
    assert not keeps(id, named(ten, NAMES[1:] + NAMES[:1]), digits[0]), "another order"
    assert not keeps(id, named(ten, ("cat", "dog", "car", "bus", "cup", "hat", "pen", "key", "sun", "map")), digits[0])
    assert not keeps(id, None, digits[0])


def test_numbers_as_names_say_nothing_about_another_data_set(ten: Victim) -> None:
    numbered = replace(data.load("digits", "train"), classes=tuple("0123456789"))
    assert keeps("finetune", named(ten, tuple("0123456789"), "digits"), numbered)
    assert not keeps("finetune", named(ten, tuple("0123456789"), "street-numbers"), numbered)
    assert keeps("finetune", named(ten, tuple("0123456789"), "street-numbers"), numbered, new_head="no")


@pytest.mark.parametrize("id", STARTING_ANEW)
def test_methods_that_start_anew_keep_nothing_and_refuse_no(id: str, ten: Victim, digits: Any) -> None:
    assert not keeps(id, ten, digits[0])
    with pytest.raises(InputError, match="without the source's classifier"):
        keeps(id, ten, digits[0], new_head="no")


def test_no_is_refused_where_it_cannot_be_done(ten: Victim, small_victim: Any, digits: Any) -> None:
    few = named(ten, NAMES[:9])
    with pytest.raises(InputError, match=r"new_head=no: .* has 9 classes, digits has 10"):
        keeps("finetune", few, digits[0], new_head="no")
    for id in ("probe", "lwf"):
        assert not keeps(id, ten, digits[0], hidden="12")
        with pytest.raises(InputError, match="without the source's classifier"):
            keeps(id, ten, digits[0], hidden="12", new_head="no")
    with pytest.raises(InputError, match="without the source's classifier"):
        keeps("madry", ten, digits[0], from_scratch=True, new_head="no")
    with pytest.raises(InputError, match="without the source's classifier"):
        keeps("madry", None, digits[0], new_head="no")
    with pytest.raises(InputError, match="new_head"):
        methods.build("finetune", {"new_head": "maybe"})


@pytest.mark.parametrize("new_head", ["auto", "yes"])
def test_the_card_says_what_became_of_the_classifier(new_head: str, ten: Victim, digits: Any) -> None:
    """At a learning rate of 0 a kept classifier is the source's, bit for bit, and head_lr is for new ones alone."""
    method = methods.build("finetune", {**SHORT, "lr": 0, "new_head": new_head})
    recipe = Recipe("v", "finetune", "digits", "")
    model, card, _ = train_victim(recipe, method, ten, digits)
    assert card.head == ("kept" if new_head == "auto" else "new")
    same = torch.equal(model.head.weight, ten.model.head.weight)  # type: ignore[operator, union-attr, arg-type]
    assert same is (new_head == "auto")
    fast = methods.build("finetune", {**SHORT, "head_lr": 5, "new_head": new_head})
    slow = methods.build("finetune", {**SHORT, "new_head": new_head})
    heads: list[Any] = [train_victim(recipe, one, ten, digits)[0].get_submodule("head") for one in (fast, slow)]
    assert torch.equal(heads[0].weight, heads[1].weight) is (new_head == "auto")


def test_a_probe_of_a_kept_classifier_trains_it_alone(ten: Victim, digits: Any) -> None:
    method = methods.build("probe", {**SHORT, "lr": 0.1})
    model, card, _ = train_victim(Recipe("v", "probe", "digits", ""), method, ten, digits)
    assert card.head == "kept"
    before = ten.model.state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}


class Folded(nn.Module):
    """The small network with its classifier as a 1x1 convolution, which no new linear layer can replace."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.trunk, self.classifier = model, nn.Conv2d(model.head.in_features, 10, 1)
        with torch.no_grad():
            self.classifier.weight.copy_(model.head.weight[:, :, None, None])
        self.trunk.head = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.trunk(x)[:, :, None, None]).flatten(1)


def test_a_classifier_that_is_kept_need_not_be_linear(ten: Victim, digits: Any) -> None:
    folded = Victim(ten.card, Folded(ten.model).eval(), Layers((), "classifier"), "")
    recipe = Recipe("v", "finetune", "digits", "")
    model, card, _ = train_victim(recipe, methods.build("finetune", SHORT), folded, digits)
    assert card.head == "kept"
    assert isinstance(model.get_submodule("classifier"), nn.Conv2d)
    with pytest.raises(InputError, match="not a linear layer"):
        train_victim(recipe, methods.build("finetune", {**SHORT, "new_head": "yes"}), folded, digits)


def test_an_igam_teacher_keeps_its_classifier_and_trains_it(ten: Victim, digits: Any) -> None:
    method: Any = methods.build("igam", {**settings("igam"), "teacher_lr": 0})
    card: ModelCard = train_victim(Recipe("v", "igam", "digits", ""), method, ten, digits)[1]
    assert card.head == "kept"
    theirs: Any = ten.model
    assert torch.equal(method.teacher.model.head.weight, theirs.head.weight)


RADII = {**dict.fromkeys(("madry", "free", "trades", "roli", "twins", "fare"), "eps"), "igam": "input_noise"}
LISTS = ("eat", "apgd-at", "sat", "avg", "max", "msd", "ramp")


def test_every_method_with_an_inner_attack_is_in_these_tests() -> None:
    """A method with a radius among its parameters is in RADII or LISTS, so that a new one is not forgotten."""
    for id, entry in registry.entries("methods").items():
        if registry.preset_of(entry):
            continue
        names = set(vars(methods.build(id, {}).params))
        assert bool(names & {"eps", "l_eps", "input_noise"}) == (id in RADII or id in LISTS), id


@pytest.mark.parametrize("value", ["-7", "Linf eps 8", "8", "nan", "inf", "", "8/0", "0x8", "8/255,12"])
@pytest.mark.parametrize("id", RADII)
def test_a_radius_that_is_none_is_refused_when_params_are_made(id: str, value: str) -> None:
    with pytest.raises(InputError):
        methods.build(id, {RADII[id]: value})


@pytest.mark.parametrize("value", ["-7", "Linf eps 8", "8/255,,12", "8/255;12", "", "nan,12", "-1,-2", "8/255,12,1,1"])
@pytest.mark.parametrize("id", LISTS)
def test_a_list_of_radii_that_is_none_is_refused_when_params_are_made(id: str, value: str) -> None:
    with pytest.raises(InputError):
        methods.build(id, {"l_eps": value})


@pytest.mark.parametrize("id", [id for id in LISTS if id != "msd"])
def test_lists_pair_up_and_norms_are_norms(id: str) -> None:
    for given in (
        {"l_norms": "Linf,L1", "l_eps": "0.1"},
        {"l_norms": "Linf", "l_eps": "0.1,1"},
        {"l_norms": "Linf,Linf", "l_eps": "0.1,0.1"},
        {"l_norms": "L3", "l_eps": "0.1"},
        {"l_norms": "Linf,L1", "l_eps": "0.1,1", "l_iters": "5"},
        {"l_norms": "Linf", "l_eps": "0.1", "l_iters": "0"},
        {"l_norms": "Linf", "l_eps": "0.1", "l_iters": "-3"},
        {"l_norms": "Linf", "l_eps": "1.5"},
    ):
        with pytest.raises(InputError):
            methods.build(id, given)
    one = {"l_norms": "Linf", "l_eps": "8/255", "l_iters": "7"}
    two = {"l_norms": "Linf,L2", "l_eps": "8/255,0.5", "l_iters": "7,8"}
    given = two if id == "ramp" else one
    assert methods.build(id, given).params.l_iters == given["l_iters"]

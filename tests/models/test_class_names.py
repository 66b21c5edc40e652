"""When the class names of a data set are those of a model's card."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest

from transferbench.base.errors import InputError
from transferbench.models.cards import ModelCard
from transferbench.models.class_names import first_difference
from transferbench.models.features import Layers
from transferbench.models.victim import Victim


def numbers(start: int, stop: int) -> list[str]:
    return [str(k) for k in range(start, stop)]


NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("card", "dataset"),
    [
        (["fire_truck", "Cat"], ["Fire truck", "cat"]),
        ([NFC, "tea"], [NFD, "tea"]),
        # A card or a data set without names.
        (numbers(0, 3), ["ant", "bee", "cat"]),
        (["ant", "bee", "cat"], numbers(0, 3)),
        (["ant", "1", "cat"], ["ant", "bee", "cat"]),
        (numbers(0, 3), ["3", "5", "8"]),
        # Numbers by value; a data set that counts from 1 (Flowers-102), a model that counts from 0.
        (numbers(0, 12), [f"{k:03d}" for k in range(12)]),
        (numbers(0, 102), numbers(1, 103)),
        (numbers(1, 103), numbers(0, 102)),
        (["++", "--"], ["++", "--"]),
        (["crane", "crane", "ant"], ["crane", "crane", "ant"]),
    ],
)
def test_names_that_agree(card: Sequence[str], dataset: Sequence[str]) -> None:
    assert first_difference(card, dataset) is None


@pytest.mark.parametrize(
    ("card", "dataset", "label"),
    [
        (["ant", "bee"], ["bee", "ant"], 0),
        # Numbers in the order of text against numbers in order, on either side.
        (numbers(0, 12), sorted(numbers(0, 12)), 2),
        (sorted(numbers(0, 12)), numbers(0, 12), 2),
        (numbers(0, 102), sorted(numbers(1, 103)), 0),
        # The folder 10 is at label 2, and the card has a class 10 at label 3.
        (["0", "1", "2", "10"], ["0", "1", "10", "2"], 2),
        (["0", "1", "2", "10"], ["0", "1", "10", "11"], 2),
        (["zero", "1", "two"], ["one", "zero", "two"], 0),
        (["ant", "1", "cat"], ["ant", "cat", "bee"], 1),
        # Names that consist of separators, or differ only by them.
        (["++", "--"], ["--", "++"], 0),
        (["+", "ant"], ["-", "ant"], 0),
        (["c++", "c#"], ["c#", "c++"], 0),
        (["🐱", "🐶"], ["🐶", "🐱"], 0),
        (["Polish", "polish"], ["polish", "Polish"], 0),
    ],
)
def test_names_that_contradict_each_other(card: Sequence[str], dataset: Sequence[str], label: int) -> None:
    assert first_difference(card, dataset) == label


def test_a_victim_refuses_the_other_order_in_one_line(small_victim: Victim) -> None:
    card = small_victim.card.model_copy(update={"classes": tuple(numbers(0, 12))})
    victim = Victim(card, small_victim.model, Layers((), ""), "0" * 64)
    assert isinstance(card, ModelCard)
    victim.check_fits("folder:mine", card.input_shape, numbers(0, 12))
    with pytest.raises(InputError, match=r"class 2 of folder:mine is '10', .* knows it as '2': labels would be wrong"):
        victim.check_fits("folder:mine", card.input_shape, sorted(numbers(0, 12)))

"""Data sets and loaders in place of tensors: the same verdicts, or one line that says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from support.nets import Small
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

import transferbench
from transferbench import data
from transferbench.base.errors import InputError
from transferbench.models import victims

THREATS = {"Linf": "0.06"}


def evaluate(model: Any, *images: Any, **more: Any) -> transferbench.Report:
    return transferbench.evaluate(model, *images, threats=THREATS, attacks="pgd", n_iter=2, progress=False, **more)


class Stream(IterableDataset[Any]):
    def __init__(self, small: Small) -> None:
        self.small = small

    def __iter__(self) -> Iterator[Any]:
        return zip(self.small.x, self.small.y.tolist(), strict=True)


def test_data_sets_and_loaders_give_the_verdicts_of_their_tensors(small: Small) -> None:
    whole = TensorDataset(small.x, small.y)
    expected = evaluate(small.model, small.x, small.y)
    state = torch.get_rng_state()
    for source in (whole, DataLoader(whole, batch_size=7), DataLoader(whole, batch_size=None), Stream(small)):
        got = evaluate(small.model, source)
        pd.testing.assert_frame_equal(got.verdicts, expected.verdicts)
        assert torch.equal(got.x_adv["Linf"], expected.x_adv["Linf"])
    assert torch.equal(torch.get_rng_state(), state), "a loader draws from the global generator"


def test_a_data_set_of_the_package_brings_its_ids_and_the_victim_its_radii() -> None:
    victim, letters = victims.load("letters-madry"), data.load("letters", "test").first(40)
    at = torch.arange(8, 40)
    got = transferbench.evaluate(victim, letters.select(at), attacks="apgd-ce", n_iter=2, progress=False)
    assert got.radii == {norm: eps.text for norm, eps in victim.card.threats.items()}
    same = transferbench.evaluate(
        victim.model,
        letters.pixels[at],
        letters.labels[at],
        got.radii,
        "apgd-ce",
        2,
        ids=letters.ids[at],
        progress=False,
    )
    pd.testing.assert_frame_equal(got.verdicts, same.verdicts)
    other = transferbench.evaluate(
        victim.model, letters.pixels[at], letters.labels[at], got.radii, "apgd-ce", 2, progress=False
    )
    assert not got.verdicts.equals(other.verdicts), "ids 0..n-1 are other random starts"
    with pytest.raises(InputError, match="classes"):
        transferbench.evaluate(victim, data.load("digits", "test").first(8), progress=False)


class Pictures(TorchDataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> Any:
        return self.items[place]


def test_other_items_are_refused_in_one_line(small: Small) -> None:
    image = small.x[0]
    wrong: list[tuple[list[Any], str]] = [
        ([(Image.new("L", (8, 8)), 0)], "ToTensor"),
        ([(image, 0), (image[:, :4], 1)], "one size"),
        ([(image, 0, "path")], r"3 values: \(image, label\)"),
        ([{"image": image, "label": 0}], "a dict"),
        ([], "empty"),
    ]
    for items, complaint in wrong:
        with pytest.raises(InputError, match=complaint) as caught:
            evaluate(small.model, Pictures(items))
        assert len(str(caught.value).splitlines()) == 1


def test_labels_stand_in_one_place(small: Small) -> None:
    whole = TensorDataset(small.x, small.y)
    with pytest.raises(InputError, match="leave y out"):
        evaluate(small.model, whole, small.y)
    with pytest.raises(InputError, match="labels y are missing"):
        evaluate(small.model, small.x)
    with pytest.raises(InputError, match="shuffle=False"):
        evaluate(small.model, DataLoader(whole, shuffle=True))
    with pytest.raises(InputError, match="only a victim has them"):
        transferbench.evaluate(small.model, small.x, small.y)

"""Which images of a class a training on few images takes: Renofeation's own random choice, beside the keyed one.

`Dataset.shots` draws by the training's seed. Renofeation's `--shot n` (Chin et al. 2020, arXiv:2002.02998) always
draws with seed 98, by Python's `random.shuffle` of positions in the official lists. A data set whose loader that code
has says with `renofeation_shots(id, root, view, k)` which paths it takes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch

from transferbench.base import registry
from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import InputError
from transferbench.data import Dataset, View, listed
from transferbench.data.listed import ListedImage

Rule = Literal["keyed", "renofeation"]
SEED = 98


def shuffled(rows: Iterable[ListedImage]) -> list[ListedImage]:
    """The images in the order of `random.seed(98); random.shuffle(...)`."""
    order = list(rows)
    random.Random(SEED).shuffle(order)
    return order


def of_each_class(
    rows: Sequence[ListedImage], k: int, trains: Callable[[ListedImage], bool] = lambda _: True
) -> list[str]:
    """The first k paths of every class that `trains` allows, each class shuffled by itself with the same seed."""
    labels = sorted({row.label for row in rows})
    classes = [shuffled(row for row in rows if row.label == label) for label in labels]
    return [row.path for own in classes for row in [row for row in own if trains(row)][:k]]


def of_the_whole(rows: Sequence[ListedImage], k: int) -> list[str]:
    """The first k paths of every class, after one shuffle of all images."""
    order = shuffled(rows)
    labels = sorted({row.label for row in rows})
    return [row.path for label in labels for row in [row for row in order if row.label == label][:k]]


def check(id: str, rule: Rule, shots: int | None, validation: str) -> None:
    """InputError where the rule has no meaning for a data set, or for the other options."""
    if rule == "keyed":
        return
    if shots is None:
        raise InputError(f"shots_rule {rule}: say how many images of each class, with shots")
    if DatasetId.parse(id).items:
        raise InputError(f"shots_rule {rule}: that code draws from all classes of a data set; leave the brackets out")
    if not hasattr(DatasetId.parse(id).find().load(), "renofeation_shots"):
        raise InputError(
            f"shots_rule {rule}: {id} is none of the data sets that Renofeation's code draws from; leave it out"
        )
    if validation != "none":
        raise InputError(
            f"shots_rule {rule}: that code draws from all training images, some of which are kept for validation: "
            "set validation=none"
        )


def drawn(id: str, whole: Dataset, root: Path | None, view: View | None, k: int) -> Dataset:
    """Renofeation's k images of each class of `whole`, all training images, in the order of `whole`.

    InputError when a class has fewer: that code takes fewer then, and for Flowers-102 gives them wrong labels.
    """
    fewest = min(whole.class_counts())
    if not 1 <= k <= fewest:
        raise InputError(f"{k} shots: data set {id} has between 1 and {fewest} training images in every class")
    module = registry.find_family("data", id).load()
    paths: list[str] = module.renofeation_shots(id, root or Path("data"), view or View(), k)
    chosen = torch.tensor([listed.example_id(path) for path in paths])
    return whole.select(torch.isin(whole.ids, chosen).nonzero().flatten())

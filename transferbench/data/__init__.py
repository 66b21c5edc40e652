"""Data set id -> pixels in [0,1], labels, stable example ids; one file per family of data sets.

A file of this folder lists its data sets in a literal `IDS` and has
`load(id: str, split: Split, root: Path | None) -> Dataset`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from transferbench import registry
from transferbench.types import FaultError, InputError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Dataset:
    """One split in its published order: images [n, C, H, W] float32 in [0,1], labels int64 [n].

    `ids` int64 [n] name the examples for ever: random starts are keyed by them, shards are made of them. The
    first n examples of a test split are the attacked ones, whatever n; `attackable` limits them where a data
    set reserves the rest for clean accuracy.
    """

    id: str
    split: Split
    images: Tensor
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    attackable: int | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        if not (self.labels.shape == self.ids.shape == (n,)):
            raise FaultError(f"{self.id}/{self.split}: images, labels and ids differ in length")
        if n == 0:
            raise InputError(f"data set {self.id}, split {self.split}: there are no examples")
        if len(self.ids.unique()) != n:
            raise FaultError(f"{self.id}/{self.split}: example ids are not unique")
        if not (int(self.labels.min()) >= 0 and int(self.labels.max()) < len(self.classes)):
            raise FaultError(f"{self.id}/{self.split}: a label lies outside the {len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    def first(self, n: int) -> Dataset:
        """The first n in order, the n that an evaluation attacks. InputError when there are fewer."""
        limit = self.attackable if self.attackable is not None else len(self)
        if n > limit:
            raise InputError(
                f"n={n}: data set {self.id} has {limit} examples to attack in its {self.split} split; "
                f"ask for at most {limit}"
            )
        return self.select(torch.arange(n))

    def select(self, positions: Tensor | Sequence[int]) -> Dataset:
        at = torch.as_tensor(positions, dtype=torch.int64)
        return Dataset(self.id, self.split, self.images[at], self.labels[at], self.ids[at], self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits over pixels, labels, ids and class names in order: what an evaluation's key holds."""
        digest = hashlib.sha256(repr((self.id, self.split, self.classes, self.shape)).encode())
        for part in (self.images, self.labels, self.ids):
            digest.update(part.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def class_counts(self) -> list[int]:
        return torch.bincount(self.labels, minlength=len(self.classes)).tolist()


def load(id: str, split: Split, root: Path | None = None) -> Dataset:
    """The split of a data set; `root` is the folder that holds the files of those that need files.

    Returns images [n, C, H, W] in [0,1]. InputError for an unknown id, or files that are not there.
    """
    family, _, _ = id.partition(":")
    entry = registry.find("data", family)
    dataset: Dataset = entry.load().load(id, split, root)
    return dataset


def check_writable(folder: Path) -> None:
    """InputError, before any work is done, when nothing can be written at the folder."""
    place = folder
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--out {folder}: cannot write at {place}: give another folder")

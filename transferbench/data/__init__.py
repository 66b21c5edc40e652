"""Data set id -> pixels in [0,1], labels, stable example ids; one file per data set or family.

A file of this folder lists its data sets in a literal `IDS` and has
`load(id: str, split: Split, root: Path, view: View) -> Dataset`; those that need files list them in a literal
`NEEDS = {id: paths below the folder of data sets}`, and may have `download(id, root)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from transferbench.base import keyed_random, registry
from transferbench.base.errors import FaultError, InputError
from transferbench.data.augment import crop_flip
from transferbench.data.files import Files

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Augment = Literal["none", "crop-flip", "resized-crop-flip"]


class View(NamedTuple):
    """How a network wants photographs of any size: its preprocessing where it names one, else its input's side.

    Data sets of one small size (CIFAR, digits) are what they are; a network resizes them inside itself. `made`: the
    files have the official layout but are made for a smoke run, few and without the official hashes.
    """

    preprocessing: str = ""
    side: int | None = None
    made: bool = False

    @classmethod
    def of(cls, preprocessing: str, shape: Sequence[int]) -> View:
        """From what a card says: its preprocessing and its input's shape [C, H, W]."""
        return cls(preprocessing, shape[2] if len(shape) == 3 and shape[1] == shape[2] else None)


@dataclass(frozen=True)
class Dataset:
    """One split in its published order: images [n, C, H, W] float32 in [0,1], labels int64 [n].

    `images` are a tensor, or `Files` that are decoded when indexed. `ids` int64 [n] name the examples for ever:
    random starts are keyed by them, shards are made of them. The first n examples of a test split are the attacked
    ones, whatever n; `attackable` limits them where a data set reserves the rest for clean accuracy.
    `preprocessing` is what files went through, `augment` the training pipeline of the papers that use the data.
    """

    id: str
    split: Split
    images: Tensor | Files
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    attackable: int | None = None
    preprocessing: str = ""
    augment: Augment = "none"

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
        return tuple(self.images.shape) if isinstance(self.images, Files) else tuple(self.images.shape[1:])

    @property
    def pixels(self) -> Tensor:
        """All images at once: of a shard, or of a set that is in memory anyway."""
        return self.images[torch.arange(len(self))] if isinstance(self.images, Files) else self.images

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
        """These examples in this order; files stay on disk."""
        at = torch.as_tensor(positions, dtype=torch.int64)
        images = self.images.subset(at) if isinstance(self.images, Files) else self.images[at]
        return replace(self, images=images, labels=self.labels[at], ids=self.ids[at], attackable=None)

    def shots(self, k: int, seed: int) -> Dataset:
        """k examples of each class, chosen by the seed. InputError when a class has fewer."""
        fewest = min(self.class_counts())
        if not 1 <= k <= fewest:
            raise InputError(f"{k} shots: data set {self.id} has between 1 and {fewest} training images in every class")
        order = keyed_random.permutation(keyed_random.stream("shots", self.id, seed), len(self))
        labels = self.labels[order]
        kept = [order[(labels == label).nonzero().flatten()[:k]] for label in range(len(self.classes))]
        return self.select(torch.cat(kept).sort().values)

    def on(self, device: torch.device | str) -> Dataset:
        """The examples decoded, on a device: for shards, never for a whole set of files."""
        return replace(self, images=self.pixels.to(device), labels=self.labels.to(device), ids=self.ids.to(device))

    def batches(self, size: int) -> Iterator[Dataset]:
        """Consecutive parts, decoded one at a time."""
        for start in range(0, len(self), size):
            yield self.select(torch.arange(start, min(start + size, len(self))))

    def drawn(self, at: Tensor, keys: Tensor, augment: Augment) -> Tensor:
        """The images at the positions through a training pipeline whose every draw is keyed, int64 per image.

        InputError for resized crops of images in memory: they are cut from the originals on disk.
        """
        if augment == "none":
            return self.images[at]
        if augment == "crop-flip":
            return crop_flip(self.images[at], keys)
        if not isinstance(self.images, Files):
            raise InputError(
                f"augment=resized-crop-flip needs image files; {self.id} is in memory: use crop-flip or none"
            )
        return self.images.augmented(at, keys)

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits over images (pixels, or files), labels, ids and class names in order."""
        digest = hashlib.sha256(repr((self.id, self.split, self.classes, self.shape)).encode())
        if isinstance(self.images, Files):
            digest.update(self.images.digest())
        else:
            digest.update(self.images.cpu().contiguous().numpy().tobytes())
        for part in (self.labels, self.ids):
            digest.update(part.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def class_counts(self) -> list[int]:
        return torch.bincount(self.labels, minlength=len(self.classes)).tolist()


def load(id: str, split: Split, root: Path | None = None, view: View | None = None) -> Dataset:
    """The split of a data set; `root` is the folder that holds the files of those that need files (`data`).

    Returns images [n, C, H, W] in [0,1]. InputError for an unknown id, or files that are not there.
    """
    family, _, _ = id.partition(":")
    entry = registry.find("data", family)
    dataset: Dataset = entry.load().load(id, split, root or Path("data"), view or View())
    return dataset


def download(id: str, root: Path | None = None) -> None:
    """Fetch a data set's files if they are missing. InputError where there is no checkable download, or it fails."""
    entry = registry.find("data", id.partition(":")[0])
    if not registry.missing(entry, root or Path("data")):
        return
    module = entry.load()
    if not hasattr(module, "download"):
        raise InputError(f"data set {id}: it cannot be downloaded from here; leave --download out to see where it is")
    module.download(id, root or Path("data"))

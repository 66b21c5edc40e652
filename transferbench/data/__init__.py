"""Data sets: pixels in [0,1], labels and stable example ids; one module per data set or family.

A module of this package lists its data sets in a literal `IDS` and has
`load(id: str, split: Split, root: Path, view: View) -> Dataset`. Data sets that need files list them in a literal
`NEEDS = {id: paths below the folder of data sets}`, and may have `download(id: str, root: Path) -> None`. Data sets of
photographs of any size set `PHOTOGRAPHS = True`. A module never sees a subset of classes (`cifar100[0-49]`): it loads
the whole data set, and `load` here takes the subset.
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
from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import FaultError, InputError
from transferbench.data import class_subset
from transferbench.data.augment import crop_flip
from transferbench.data.files import Files
from transferbench.data.preprocessing import Preprocessing

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
FOLDER = Path("data")
"""The folder of data sets' files where none is named."""
Augment = Literal["none", "crop-flip", "resized-crop-flip"]


class View(NamedTuple):
    """How photographs of any size become the images that are attacked; the one rule of `train`, `run` and `eval`.

    By a `preprocessing`, else by the `side` of the network's input: files of that size are unchanged, others are
    resized to 8/7 of it and cropped (`Preprocessing.for_side`). Data sets of one small size (CIFAR, digits) ignore it.
    A network that takes another size than the resulting images has a resizing layer. `synthetic`: the files were
    generated for a smoke run, few and without the official hashes.
    """

    preprocessing: str = ""
    side: int | None = None
    synthetic: bool = False

    @classmethod
    def of(cls, preprocessing: str, shape: Sequence[int]) -> View:
        """The view of a network with this preprocessing and this input shape [C, H, W]."""
        side = shape[2] if len(shape) == 3 and shape[1] == shape[2] else None
        # What a training on resized photographs writes on its card is the rule for that side, not another one.
        is_default = side is not None and preprocessing == Preprocessing.for_side(side).text
        return cls("" if is_default else preprocessing, side)

    @classmethod
    def parse(cls, text: str, synthetic: bool = False) -> View:
        """From the text in a job: a preprocessing, `Side32`, or nothing."""
        side = text.removeprefix("Side")
        return cls("", int(side), synthetic) if side != text else cls(text, None, synthetic)

    @property
    def text(self) -> str:
        """The text that `parse` reads; it also names jobs."""
        return self.preprocessing or ("" if self.side is None else f"Side{self.side}")


@dataclass(frozen=True)
class Dataset:
    """One split in its published order: images [n, C, H, W] float32 in [0,1], labels int64 [n].

    `images` are a tensor, or `Files` that are decoded when indexed. `ids` int64 [n] are permanent: random numbers are
    keyed by them. An evaluation of n examples attacks the first n of the test split; `attackable` is the largest n of
    data sets that reserve the rest for clean accuracy. `preprocessing` is the one that was applied to files, `augment`
    the data augmentation of the papers that use the data. `notes` are lines about how the split was read: files that
    were left out, classes without images, an order of classes that is not that of text.
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
    notes: tuple[str, ...] = ()

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
        """[C, H, W] of an image."""
        return tuple(self.images.shape) if isinstance(self.images, Files) else tuple(self.images.shape[1:])

    @property
    def pixels(self) -> Tensor:
        """All images decoded, [n, C, H, W]: for shards and for sets in memory."""
        return self.images[torch.arange(len(self))] if isinstance(self.images, Files) else self.images

    def first(self, n: int, stratified: bool = False) -> Dataset:
        """The first n examples, those that an evaluation attacks; `stratified`: of each class in turn, the first of
        every class, then the second, and so on, in the data set's order. InputError when there are fewer."""
        limit = self.attackable if self.attackable is not None else len(self)
        if n > limit:
            raise InputError(
                f"n={n}: data set {self.id} has {limit} examples to attack in its {self.split} split; "
                f"ask for at most {limit}"
            )
        return self.select(self._classes_in_turn(limit)[:n] if stratified else torch.arange(n))

    def _classes_in_turn(self, count: int) -> Tensor:
        """The first `count` positions, ordered by their place among those of their class."""
        labels = self.labels[:count].cpu()
        by_label, sizes = labels.argsort(stable=True), torch.bincount(labels)
        place = torch.empty_like(labels)
        place[by_label] = torch.arange(count) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        return place.argsort(stable=True)

    def select(self, positions: Tensor | Sequence[int]) -> Dataset:
        """The examples at the positions, in that order; files are not decoded."""
        at = torch.as_tensor(positions, dtype=torch.int64)
        images = self.images.subset(at) if isinstance(self.images, Files) else self.images[at]
        return replace(self, images=images, labels=self.labels[at], ids=self.ids[at], attackable=None)

    def joined(self, other: Dataset) -> Dataset:
        """The examples of two splits of one data set, in the order of their ids. `split` and notes are the first's."""
        images = (
            self.images.joined(other.images)
            if isinstance(self.images, Files) and isinstance(other.images, Files)
            else torch.cat([self.pixels, other.pixels])
        )
        labels, ids = torch.cat([self.labels, other.labels]), torch.cat([self.ids, other.ids])
        return replace(self, images=images, labels=labels, ids=ids).select(ids.sort().indices)

    def shots(self, k: int, seed: int) -> Dataset:
        """k examples of each class, drawn by the seed. InputError when a class has fewer."""
        fewest = min(self.class_counts())
        if not 1 <= k <= fewest:
            raise InputError(f"{k} shots: data set {self.id} has between 1 and {fewest} training images in every class")
        order = keyed_random.permutation(keyed_random.stream("shots", self.id, seed), len(self))
        labels = self.labels[order]
        chosen = [order[(labels == label).nonzero().flatten()[:k]] for label in range(len(self.classes))]
        return self.select(torch.cat(chosen).sort().values)

    def on(self, device: torch.device | str) -> Dataset:
        """All examples decoded, on a device: for shards, not for large sets of files."""
        # Without waiting where memory is pinned (data/decoding.py); operations on the GPU wait for the copy themselves.
        images, labels, ids = (
            tensor.to(device, non_blocking=tensor.is_pinned()) for tensor in (self.pixels, self.labels, self.ids)
        )
        return replace(self, images=images, labels=labels, ids=ids)

    def batches(self, size: int) -> Iterator[Dataset]:
        """Consecutive parts of at most `size` examples."""
        for start in range(0, len(self), size):
            yield self.select(torch.arange(start, min(start + size, len(self))))

    def augmented(self, at: Tensor, keys: Tensor, augment: Augment, padding: int | None = None) -> Tensor:
        """The augmented images at the positions; `keys` int64, one per image, determine the random draws.

        `padding` is crop_flip's.

        InputError for resized crops of images in memory: they are cropped from the original files.
        """
        if augment == "none":
            return self.images[at]
        if augment == "crop-flip":
            return crop_flip(self.images[at], keys, padding)
        if not isinstance(self.images, Files):
            raise InputError(
                f"augment=resized-crop-flip needs image files; {self.id} is in memory: use crop-flip or none"
            )
        return self.images.augmented(at, keys)

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits: a hash of images (pixels, or files), labels, ids and class names in order."""
        digest = hashlib.sha256(repr((self.id, self.split, self.classes, self.shape)).encode())
        if isinstance(self.images, Files):
            digest.update(self.images.digest())
        else:
            digest.update(self.images.cpu().contiguous().numpy().tobytes())
        for part in (self.labels, self.ids):
            digest.update(part.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def class_counts(self) -> list[int]:
        """The number of examples of each class."""
        return torch.bincount(self.labels, minlength=len(self.classes)).tolist()


def load(id: str, split: Split, root: Path | None = None, view: View | None = None) -> Dataset:
    """A split of a data set. `root` is the folder of data sets' files (None: `data`).

    InputError for an unknown id or class, or for missing or wrong files.
    """
    parsed = DatasetId.parse(id)
    if parsed.items and parsed.base.startswith("folder:") and Path(id.partition(":")[2]).is_dir():
        raise InputError(
            f"data set {id}: is it the folder of that name? Then write {id}/; or rename it, to take a subset"
        )
    whole: Dataset = parsed.find().load().load(parsed.base, split, root or FOLDER, view or View())
    return class_subset.subset(whole, parsed) if parsed.items else whole


def are_photographs(id: str) -> bool:
    """Whether a data set's images come in any size, so that a `View` decides the size that is attacked."""
    module = DatasetId.parse(id).find().load()
    return bool(getattr(module, "PHOTOGRAPHS", False))


def is_packaged(id: str) -> bool:
    """Whether a data set's images come with this package or one that it requires. All others are other people's: files
    of the user, a plugin's, or of a data set that is not known here. What is passed on carries none of them."""
    try:
        entry = DatasetId.parse(id).find()
    except InputError:
        return False
    is_ours = entry.module.startswith(f"{__name__}.")
    return is_ours and entry.id != "folder" and not registry.literal(entry, "NEEDS").get(entry.id)


def download(id: str, root: Path | None = None) -> None:
    """Download a data set's files if they are missing. InputError where no download exists, or when it fails."""
    parsed = DatasetId.parse(id)
    entry = parsed.find()
    if not registry.missing(entry, root or FOLDER):
        return
    module = entry.load()
    if not hasattr(module, "download"):
        raise InputError(f"data set {id}: it cannot be downloaded; leave --download out to see where it is")
    module.download(parsed.base, root or FOLDER)

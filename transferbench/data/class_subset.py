"""Subsets of a data set's classes: which examples remain, and their new labels.

The labels are 0 to k-1 in the order in which the classes are written. Examples keep their order and ids, so that
random numbers, keyed by them, are those of the whole data set.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import torch

from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import InputError
from transferbench.base.spelling import composed, number

if TYPE_CHECKING:
    from transferbench.data import Dataset

_SHOWN = 6
"""Maximum number of class names in a note."""


def subset(whole: Dataset, id: DatasetId) -> Dataset:
    """The examples of the id's classes. InputError for unknown or repeated classes, fewer than two, or no example.

    Of a data set that reserves examples for clean accuracy, those of these classes stay reserved.
    """
    labels = labels_of(id, whole.classes)
    new = torch.full((len(whole.classes),), -1)
    new[labels] = torch.arange(len(labels))
    at = (new[whole.labels] >= 0).nonzero().flatten()
    if not len(at):
        raise InputError(f"data set {id}, split {whole.split}: none of its images is of these classes")
    part = whole.select(at)
    classes = tuple(whole.classes[label] for label in labels)
    notes = [note for note in whole.notes if note != missing_classes(whole)]
    part = replace(
        part,
        id=str(id),
        labels=new[part.labels],
        classes=classes,
        attackable=None if whole.attackable is None else int((at < whole.attackable).sum()),
    )
    notes += [missing_classes(part), f"labels 0 to {len(labels) - 1} are {_described(labels, classes, id.base)}"]
    return replace(part, notes=tuple(note for note in notes if note))


def labels_of(id: DatasetId, classes: Sequence[str]) -> list[int]:
    """The labels of the id's classes among those of the whole data set, in the id's order. InputError as `subset`."""
    try:
        return _labels(id.items, classes)
    except InputError as error:
        raise InputError(f"data set {id}: {error}") from None


def missing_classes(dataset: Dataset) -> str:
    """The note about classes without images; empty where every class has one."""
    empty = [name for name, count in zip(dataset.classes, dataset.class_counts(), strict=True) if count == 0]
    return missing_note(empty, len(dataset.classes))


def missing_note(empty: Sequence[str], classes: int) -> str:
    """`3 of 1000 classes have no images (first: 'n01'`); empty where none is empty."""
    return f"{len(empty)} of {classes} classes have no images (first: {empty[0]!r})" if empty else ""


def _labels(items: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The labels that the items name, in their order. A class name in full is that class, whatever it looks like."""
    named = {composed(name): label for label, name in enumerate(classes)}
    values = {value: label for label, name in enumerate(classes) if (value := number(name)) is not None}
    # Classes that are named by numbers (those of flowers102 are 1 to 102) are meant by their names.
    by_number = values or dict(enumerate(range(len(classes))))
    labels: list[int] = []
    for item in items:
        span = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", item)
        if composed(item) in named:
            labels.append(named[composed(item)])
        elif span:
            first, last = int(span[1]), int(span[2] or span[1])
            if first > last:
                raise InputError(f"the range {item} ends before it begins; write {last}-{first}")
            # Both ends first: between two names that exist, a range ends at the first that does not.
            outside = next((k for k in chain((first, last), range(first, last + 1)) if k not in by_number), None)
            if outside is not None:
                nearest = min(by_number, key=lambda k: abs(k - outside))
                kind = "classes are named" if values else "labels are"
                raise InputError(
                    f"there is no class {outside}; did you mean {nearest}? (the {kind} {min(by_number)} to "
                    f"{max(by_number)})"
                )
            labels += [by_number[k] for k in range(first, last + 1)]
        else:
            folded = {name.casefold(): name for name in named}
            near = difflib.get_close_matches(composed(item).casefold(), folded, n=1, cutoff=0)
            hint = f"did you mean {folded[near[0]]!r}? (there are {len(classes)} classes)"
            raise InputError(f"unknown class {item!r}; {hint}")
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"class {classes[label]!r} (label {label}) is named twice")
    if len(labels) < 2:
        raise InputError("name at least 2 classes")
    return labels


def _described(labels: Sequence[int], classes: Sequence[str], base: str) -> str:
    """`the labels 0-49 of cifar100 (apple, aquarium_fish, baby, bear, beaver, ..., motorcycle)`."""
    spans: list[list[int]] = []
    for label in labels:
        if spans and spans[-1][1] == label - 1:
            spans[-1][1] = label
        else:
            spans.append([label, label])
    places = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    names = [*classes] if len(classes) <= _SHOWN else [*classes[: _SHOWN - 1], "...", classes[-1]]
    places = places if len(places) <= _SHOWN else [*places[: _SHOWN - 1], "...", places[-1]]
    return f"the labels {','.join(places)} of {base} ({', '.join(names)})"

"""Class names of the public data sets in label order."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

NAMES = Path(__file__).with_suffix(".json")
"""The names in cifar10's and cifar100's official files; imagenet's WordNet ids, which `make index` writes."""


@cache
def of(dataset: str) -> tuple[str, ...]:
    """The class names of cifar10, cifar100 or imagenet, in label order. KeyError for another data set."""
    return tuple(json.loads(NAMES.read_text(encoding="utf-8"))[dataset])


def named() -> dict[str, tuple[str, ...]]:
    """The class names of all data sets of the file."""
    return {dataset: of(dataset) for dataset in json.loads(NAMES.read_text(encoding="utf-8"))}

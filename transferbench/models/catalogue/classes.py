"""Class names of the public data sets in the order of their labels, and the radii their models are evaluated at."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

NAMES = Path(__file__).parent / "classes.json"
"""cifar10 and cifar100 as their official files name them; imagenet's WordNet ids are written by `make index`."""

RADII: dict[str, dict[str, str]] = {
    "cifar10": {"Linf": "8/255", "L2": "0.5", "L1": "12"},
    "cifar100": {"Linf": "8/255", "L2": "0.5", "L1": "12"},
    "imagenet": {"Linf": "4/255", "L2": "2", "L1": "255"},
}
"""Radii by the data set a model was trained on: those of E-AT. No norm's default serves another."""


@cache
def of(dataset: str) -> tuple[str, ...]:
    """The class names of cifar10, cifar100 or imagenet. KeyError for another."""
    return tuple(json.loads(NAMES.read_text(encoding="utf-8"))[dataset])

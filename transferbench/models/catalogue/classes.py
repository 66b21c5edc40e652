"""Class names of the public data sets in label order, and the default radii of models trained on them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

NAMES = Path(__file__).parent / "classes.json"
"""The names in cifar10's and cifar100's official files; imagenet's WordNet ids, which `make index` writes."""

RADII: dict[str, dict[str, str]] = {
    "cifar10": {"Linf": "8/255", "L2": "0.5", "L1": "12"},
    "cifar100": {"Linf": "8/255", "L2": "0.5", "L1": "12"},
    "imagenet": {"Linf": "4/255", "L2": "2", "L1": "255"},
}
"""E-AT's radii in [0,1] pixels: data set of the training -> norm -> eps."""


@cache
def of(dataset: str) -> tuple[str, ...]:
    """The class names of cifar10, cifar100 or imagenet, in label order. KeyError for another data set."""
    return tuple(json.loads(NAMES.read_text(encoding="utf-8"))[dataset])

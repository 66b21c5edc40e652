"""Class names of the public data sets in label order, and the default radii of models trained on them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from transferbench.base.specifications import Epsilon, Norm

NAMES = Path(__file__).parent / "classes.json"
"""The names in cifar10's and cifar100's official files; imagenet's WordNet ids, which `make index` writes."""

_CIFAR: dict[Norm, str] = {"Linf": "8/255", "L2": "0.5", "L1": "12"}
_RADII: dict[str, dict[Norm, str]] = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "imagenet": {"Linf": "4/255", "L2": "2", "L1": "255"},
}


@cache
def radii_of(dataset: str) -> dict[Norm, Epsilon]:
    """E-AT's radii for models trained on a data set, in [0,1] pixels; empty for a data set without."""
    return {norm: Epsilon.parse(eps) for norm, eps in _RADII.get(dataset, {}).items()}


@cache
def of(dataset: str) -> tuple[str, ...]:
    """The class names of cifar10, cifar100 or imagenet, in label order. KeyError for another data set."""
    return tuple(json.loads(NAMES.read_text(encoding="utf-8"))[dataset])

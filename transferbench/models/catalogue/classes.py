"""Class names of the public data sets in label order, and the default radii of models trained on them."""

from __future__ import annotations

from functools import cache

from transferbench.base.class_names import NAMES, of
from transferbench.base.dataset_id import DatasetId
from transferbench.base.specifications import Epsilon, Norm

__all__ = ["NAMES", "of", "radii_of"]

_CIFAR: dict[Norm, str] = {"Linf": "8/255", "L2": "0.5", "L1": "12"}
_SMALL: dict[Norm, str] = {"Linf": "0.1", "L2": "0.4", "L1": "1.5"}
_RADII: dict[str, dict[Norm, str]] = {
    "cifar10": _CIFAR,
    "cifar10-jpeg": _CIFAR,
    "cifar100": _CIFAR,
    "imagenet": {"Linf": "4/255", "L2": "2", "L1": "255"},
    # Those of the suite letters-to-digits.
    "letters": _SMALL,
    "digits": _SMALL,
}


@cache
def radii_of(dataset: str) -> dict[Norm, Epsilon]:
    """The radii of evaluations of models trained on a data set, in [0,1] pixels: E-AT's for photographs; empty for a
    data set without. A subset of its classes has the whole data set's."""
    return {norm: Epsilon.parse(eps) for norm, eps in _RADII.get(DatasetId.parse(dataset).base, {}).items()}

"""What `evaluate` takes as images and labels: arrays, torch Datasets and DataLoaders, data sets of this package."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler
from torch.utils.data import Dataset as TorchDataset

from transferbench.base.errors import InputError
from transferbench.data import Dataset
from transferbench.models.catalogue.classes import radii_of
from transferbench.models.victim import Victim

_BATCH = 256
_RANDOM = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def examples(model: object, x: Any, y: Any, ids: Any) -> tuple[Any, Any, Any]:
    """(images, labels, ids) as arrays.

    A data set of this package has its own ids, and its classes must be those of a victim. A torch Dataset or DataLoader
    gives (image, label), in one order at every evaluation: ids are positions, unless they are given. InputError for
    labels beside one, none beside arrays, a loader that shuffles, or other items.
    """
    has_labels = isinstance(x, Dataset | TorchDataset | DataLoader)
    if not has_labels:
        if y is None:
            raise InputError("the labels y are missing: give them, or a Dataset or DataLoader of (image, label) as x")
        return x, y, ids
    if y is not None:
        raise InputError(f"x is a {type(x).__name__}, which has the labels: leave y out")
    if isinstance(x, Dataset):
        if isinstance(model, Victim):
            model.check_fits(x.id, x.shape, x.classes)
        return x.pixels, x.labels, x.ids if ids is None else ids
    return *_collected(x), ids


def default_radii(model: object) -> dict[str, str]:
    """The radii of a victim's card, else of the data set on its card. InputError where there are none."""
    if isinstance(model, Victim):
        radii = model.card.threats or radii_of(model.card.dataset)
        if radii:
            return {norm: eps.text for norm, eps in radii.items()}
        raise InputError(f"threats: neither the card of {model.id} nor its data set says at which radii: give them")
    raise InputError('threats: give the radii, as {"Linf": "8/255", "L2": 0.5}; only a victim has them on its card')


def _collected(source: TorchDataset[Any] | DataLoader[Any]) -> tuple[Tensor, Tensor]:
    """All images and labels of a Dataset or DataLoader, in its order."""
    loader = source if isinstance(source, DataLoader) else DataLoader(source, batch_size=_BATCH)
    if isinstance(getattr(loader, "sampler", None), _RANDOM):
        raise InputError(
            "the DataLoader draws its order anew each time, and random starts and verdicts go by the order: make it "
            "with shuffle=False"
        )
    images: list[Tensor] = []
    labels: list[Tensor] = []
    try:
        for item in loader:
            if not isinstance(item, list | tuple) or len(item) != 2:
                raise InputError(f"{type(source).__name__} gives {_described(item)}: (image, label) is expected")
            image, label = map(torch.as_tensor, item)
            if label.dim() == 0:
                # A loader without batches (batch_size=None) gives one image at a time.
                image, label = image.unsqueeze(0), label.reshape(1)
            images.append(image)
            labels.append(label)
        if not images:
            raise InputError(f"{type(source).__name__} is empty")
        return torch.cat(images), torch.cat(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        hint = ": tensors of one size are expected; torchvision's data sets take transform=ToTensor()"
        raise InputError(f"{type(source).__name__}: {str(error).strip().splitlines()[-1]}{hint}") from error


def _described(item: object) -> str:
    if isinstance(item, list | tuple):
        return f"{len(item)} values"
    return f"a {type(item).__name__}"

"""A network with a normalisation in front, so that it takes [0,1] pixels: `normalised:<mean>/<std>:<network>`.

Mean and deviation have one number, or one for each channel: `normalised:0.5/0.5:torchvision:resnet18`. `none` and
`imagenet` are names of two. They replace the normalisation that networks of torchvision, timm and transformers come
with; any other network gets them in front of what it does itself.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import torch
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.models import networks
from transferbench.models.features import behind
from transferbench.models.networks import Built

IDS = {"normalised": "normalised:<mean>/<std>:<network>, any network behind another normalisation of its input"}

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_ID = re.compile(r"normalised:([^:]+):(.+)")


class Normalisation(NamedTuple):
    """Mean and deviation of pixels in [0,1], one number each, or one for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def text(self) -> str:
        """The notation in ids, `none` for no normalisation: numbers that are the same in float32."""
        if not any(self.mean) and all(value == 1 for value in self.std):
            return "none"
        return "/".join(",".join(map(_text, values)) for values in self)

    @classmethod
    def parse(cls, text: str) -> Normalisation:
        """Read `0.485,0.456,0.406/0.229,0.224,0.225`, `none` or `imagenet`. InputError for anything else."""
        if text in NAMED:
            return NAMED[text]
        try:
            mean, std = (tuple(map(float, part.split(","))) for part in text.split("/"))
        except ValueError:
            mean = std = ()
        if not mean or len(mean) != len(std) or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise InputError(
                f"normalisation {text!r}: write it as mean/std, 0.5/0.5 or with a number for each channel, "
                f"0.485,0.456,0.406/0.229,0.224,0.225, or as {' or '.join(NAMED)}"
            )
        return cls(mean, std)

    @classmethod
    def of_tensors(cls, mean: Tensor, std: Tensor) -> Normalisation:
        """From the constants of a network."""
        first, second = (tuple(map(float, values.detach().float().flatten().tolist())) for values in (mean, std))
        return cls(first, second)

    def is_same(self, other: Normalisation) -> bool:
        """Whether both do the same, to four digits: constants are written in papers and code with as many."""
        count = max(len(self.mean), len(other.mean))
        own, theirs = ([*one.mean, *one.std] for one in (self.spread(count), other.spread(count)))
        return len(own) == len(theirs) and all(abs(a - b) <= 5e-5 for a, b in zip(own, theirs, strict=True))

    def spread(self, count: int) -> Normalisation:
        """With a number for each of so many channels."""
        return self if len(self.mean) != 1 else Normalisation(self.mean * count, self.std * count)


NONE = Normalisation((0.0,), (1.0,))
IMAGENET = Normalisation(MEAN, STD)
NAMED = {"none": NONE, "imagenet": IMAGENET}


class Normalised(nn.Module):
    """model((x - mean) / std) for x [B, C, H, W] in [0,1]; mean and std are constants outside the state dict."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, normalisation: Normalisation = IMAGENET) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, -1, 1, 1), persistent=False)

    @property
    def normalisation(self) -> Normalisation:
        return Normalisation.of_tensors(self.mean, self.std)

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x - self.mean) / self.std)


def build(id: str, num_classes: int) -> Built:
    """The inner network behind the normalisation, in place of the one that it comes with. InputError for an id of
    another form, or for a number of channels that the network does not have."""
    normalisation, inner = _parts(id)
    built = networks.build(inner, num_classes)
    if len(normalisation.mean) not in (1, built.input_shape[0]):
        raise InputError(f"network {id}: {inner} takes images of {built.input_shape[0]} channels")
    if isinstance(built.model, Normalised):
        return built._replace(model=Normalised(built.model.model, normalisation))
    return Built(Normalised(built.model, normalisation), behind("model", built.layers), built.input_shape)


def unstated(id: str) -> str:
    """Nothing about the normalisation, which the id states; else what the inner network's id leaves open."""
    inner = _parts(id)[1]
    module = networks.module_of(inner)
    return "" if getattr(module, "NORMALISATION", "") == "default" else networks.unstated(inner)


def check_loaded(id: str, model: nn.Module, name: str) -> None:
    """The inner network's check of its weights."""
    if isinstance(model, Normalised):
        networks.check_loaded(_parts(id)[1], model.model, name)


def _parts(id: str) -> tuple[Normalisation, str]:
    match = _ID.fullmatch(id)
    if match is None:
        raise InputError(f"network {id}: write it as normalised:<mean>/<std>:<network>, normalised:none:<network>")
    return Normalisation.parse(match[1]), match[2]


def _text(value: float) -> str:
    """The shortest decimal number that is the same in float32: 0.4914 for the 0.49140000343 of a file."""
    return next(
        text for digits in range(1, 10) if torch.tensor(float(text := f"{value:.{digits}g}")) == torch.tensor(value)
    )


def of_file(id: str, model: nn.Module, found: Normalisation) -> tuple[str, str]:
    """(the network's id behind a file's own normalisation, one line that says what was done).

    It replaces the one that torchvision's, timm's and transformers' networks come with, and stands in front of a
    network that has none. InputError for a network that normalises in another way: which of the two applies, or both,
    is not for us to guess.
    """
    channels = len(found.mean)
    if isinstance(model, Normalised):
        if _ID.fullmatch(id):
            own = model.normalisation
            said = "is the network's" if own.is_same(found) else f"{found.text} left out: the network's id states one"
            return id, f"the file's normalisation {said}"
        if model.normalisation.is_same(found):
            return id, "the file's normalisation is the network's"
        return f"normalised:{found.text}:{id}", f"normalisation {found.text} of the file, in place of the network's"
    if found.is_same(NONE.spread(channels)):
        return id, "the file's normalisation changes nothing: mean 0, deviation 1"
    if getattr(networks.module_of(id), "NORMALISATION", "") == "none":
        return f"normalised:{found.text}:{id}", f"normalisation {found.text} of the file, in front of the network"
    raise InputError(
        f"the file has a normalisation of its own, {found.text}, and {id} may have another: say which network it is "
        f"for, normalised:{found.text}:{id} puts it in front of the network"
    )


def check_beside(id: str, model: nn.Module, place: str, found: Normalisation) -> None:
    """InputError where a file has constants at a `place` beside its weights that are not the network's: whether images
    are normalised by them nothing says. An id that states a normalisation is believed."""
    own = model.normalisation if isinstance(model, Normalised) else NONE
    if "normalised:" in id or own.is_same(found):
        return
    if max(found.mean) > 1:
        found = Normalisation(*(tuple(value / 255 for value in values) for values in found))
    raise InputError(
        f"the file has a normalisation beside its weights ({place}), and nothing says that images go through it: name "
        f"the network normalised:{found.text}:{id} if they do, normalised:{own.text}:{id} if they do not"
    )

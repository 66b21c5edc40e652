"""timm's weights by name: `timm:<name>[.<tag>][@<side>]`, with the normalisation and the resizing of its configuration.

The weights are `<model-dir>/timm/<name>.<tag>.safetensors` (or .pth, .bin), or a revision of timm's repository of
Hugging Face, below `<model-dir>/hf` (models/hub.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transferbench.base.errors import InputError
from transferbench.models import hub, networks, weights
from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import classes
from transferbench.models.hub import Snapshot
from transferbench.models.image_processors import of_timm
from transferbench.models.networks import timm_nets
from transferbench.models.networks.normalised import Normalised
from transferbench.models.networks.timm_nets import TimmName
from transferbench.models.victim import Victim

IDS = {"timm": "timm:<name>[.<tag>][@<side>], any classifier of timm with its own weights"}

_FOLDER, _ENDINGS = "timm", (".safetensors", ".pth", ".bin")


def card(id: str) -> ModelCard:
    """The card of timm's weights, by its configuration. InputError for an unknown name, or one without weights."""
    parsed = TimmName.parse(id)
    found = timm_nets.configuration(parsed.name)
    full = _full(parsed, found)
    processed = of_timm(found, parsed.side)
    size = "" if parsed.side is None else f"@{parsed.side}" + ("" if parsed.patch is None else f"/{parsed.patch}")
    names, dataset = _classes(found.to_dict(), int(found.num_classes))
    return ModelCard(
        id=f"timm:{full}{size}",
        network=f"timm:{full}{size}",
        dataset=dataset,
        classes=names,
        input_shape=(int(found.input_size[0]), processed.side, processed.side),
        method="natural",
        threats=classes.radii_of(dataset),
        weights=f"{_FOLDER}/{full}{_ENDINGS[0]}",
        preprocessing=processed.preprocessing,
        text=f"# timm:{full}{size}\n\ntimm's weights of `{full}` ({found.hf_hub_id or found.url or 'no address'}).",
    )


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The network with timm's weights. InputError where they are not below the folder of models, nor downloaded."""
    expected = card(id)
    found = timm_nets.configuration(TimmName.parse(id).name)
    folder = model_dir or Path("models")
    name = expected.weights.removesuffix(_ENDINGS[0])
    file = next((path for ending in _ENDINGS if (path := folder / f"{name}{ending}").is_file()), None)
    if file is not None:
        return _of_size(id, expected, file)
    repository = str(found.hf_hub_id or "")
    if not repository:
        raise InputError(f"model {expected.id}: there are no weights at {folder / expected.weights} (--model-dir)")
    try:
        snapshot = hub.snapshot(repository, model_dir, download)
    except InputError as error:
        raise InputError(f"model {expected.id}: no weights at {folder / expected.weights}, and {error}") from None
    noted = expected.model_copy(update={"weights_notes": tuple(filter(None, (snapshot.note,)))})
    return _of_size(id, noted, snapshot.weights)


def _of_size(id: str, expected: ModelCard, file: Path) -> Victim:
    """The victim; InputError says how images of another side than the weights' are taken, where the id names one."""
    parsed = TimmName.parse(id)
    own = int(timm_nets.configuration(parsed.name).input_size[-1])
    try:
        return _victim(expected, file)
    except InputError as error:
        if (parsed.side or own) == own and parsed.patch is None:
            raise
        resized = f"resized:{parsed.side}:timm:{parsed.name}"
        raise InputError(f"{error}: timm's weights are for images of {own}; {resized} takes {parsed.side}") from None


def _victim(expected: ModelCard, file: Path) -> Victim:
    return Victim.from_file(expected.model_copy(update={"weights": file.name}), weights.open_file(file))


def of_repository(snapshot: Snapshot, config: Mapping[str, Any]) -> Victim:
    """The model of a repository in timm's layout: its config.json names the architecture and the configuration.

    InputError for an architecture that the installed timm does not have, and for a configuration of another form.
    """
    import timm

    try:
        given = dict(config["pretrained_cfg"])
        known = {name: value for name, value in given.items() if name in timm.models.PretrainedCfg.__dataclass_fields__}
        found = timm.models.PretrainedCfg(**known)
        processed = of_timm(found)
        count = int(config["num_classes"])
        network = f"timm:{config['architecture']}{_size(config.get('model_args') or {}, processed.side)}"
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"model {snapshot.id}: its config.json is not as timm writes it ({type(error).__name__}: {error})"
        ) from None
    built = networks.build_without_weights(network, count)
    assert isinstance(built.model, Normalised)
    # Compared by the configurations: on the device meta a constant has no value.
    if not processed.normalisation.is_same(timm_nets.normalisation(TimmName.parse(network).name)):
        network = f"normalised:{processed.normalisation.text}:{network}"
    labels = config.get("label_names")
    names, dataset = _classes({**known, "num_classes": count}, count)
    if isinstance(labels, list) and len({*map(str, labels)}) == count and dataset == "unknown":
        names = tuple(map(str, labels))
    return _victim(
        ModelCard(
            id=snapshot.id,
            network=network,
            dataset=dataset,
            classes=names,
            input_shape=(built.input_shape[0], processed.side, processed.side),
            method="unknown",
            threats=classes.radii_of(dataset),
            preprocessing=processed.preprocessing,
            weights_notes=tuple(filter(None, (snapshot.note,))),
            text=f"# {snapshot.id}\n\nA model of timm from Hugging Face.",
        ),
        snapshot.weights,
    )


def _full(parsed: TimmName, found: Any) -> str:
    """The name with the tag of its configuration. InputError where timm has no weights under the name."""
    if "." in parsed.name:
        return parsed.name
    if not found.tag and not (found.hf_hub_id or found.url):
        raise InputError(
            f"model timm:{parsed.name}: timm has no weights of it; file:timm:{parsed.name}=<path> is yours"
        )
    return f"{parsed.name}.{found.tag}" if found.tag else parsed.name


def _classes(config: Mapping[str, Any], count: int) -> tuple[tuple[str, ...], str]:
    """(names, data set) of a configuration's classes: ImageNet's 1000 by timm's own rule, else numbers."""
    from timm.data import infer_imagenet_subset

    if count < 2:
        raise InputError(f"a model of timm with {count} classes is no classifier")
    if count == 1000 and infer_imagenet_subset(dict(config)) == "imagenet-1k":
        return classes.of("imagenet"), "imagenet"
    return tuple(map(str, range(count))), "unknown"


def _size(arguments: Mapping[str, Any], side: int) -> str:
    """The part of the network's id for timm's `model_args`. InputError for other arguments than the two sizes."""
    others = sorted(set(arguments) - {"img_size", "patch_size"})
    if others:
        raise InputError(f"its config.json builds the network with {', '.join(others)}, which is not done here")
    patch = arguments.get("patch_size")
    return f"@{int(arguments.get('img_size', side))}" + ("" if patch is None else f"/{int(patch)}")

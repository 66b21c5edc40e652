"""Image classifiers in the layout of Hugging Face: `hf:<folder>` or `hf:<owner>/<name>[@<revision>]`.

config.json, preprocessor_config.json and safetensors, of transformers or of timm. A repository is read from
`<model-dir>/hf`, and fetched with --download alone; its revision is a part of the id. Nothing in a repository runs.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.models import hub, weights
from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import classes
from transferbench.models.features import behind
from transferbench.models.hub import Snapshot
from transferbench.models.image_processors import ImageProcessor, of_transformers
from transferbench.models.loaders import timm_models
from transferbench.models.networks import transformers_nets
from transferbench.models.networks.normalised import IMAGENET, Normalisation, Normalised
from transferbench.models.victim import Victim

IDS = {"hf": "hf:<folder> or hf:<owner>/<name>[@<revision>], an image classifier of Hugging Face"}


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The classifier with its own normalisation, resizing and class names.

    InputError where files are missing or damaged, for a configuration that would run code or is of no image classifier
    of one label, and where a weight is missing, left over or of another shape.
    """
    name = id.partition(":")[2]
    if os.path.isdir(name):
        snapshot = Snapshot(Path(name), file_stem(Path(os.path.abspath(name)).name))
    else:
        snapshot = hub.snapshot(name, model_dir, download)
    config = hub.read_json(snapshot, hub.CONFIG)
    # As timm writes its own repositories, or as transformers writes timm's models.
    if "architecture" in config and config.get("model_type") in (None, "timm_wrapper"):
        return timm_models.of_repository(snapshot, config)
    return _of_transformers(snapshot, config)


def _of_transformers(snapshot: Snapshot, config: Mapping[str, Any]) -> Victim:
    try:
        names = _class_names(config)
        processed = _processed(snapshot, config)
        network = transformers_nets.id_of(processed.side, config)
        model = transformers_nets.classifier(config, len(names))
        with torch.device("meta"):
            other = transformers_nets.classifier(config, len(names) + 1)
    except InputError as error:
        raise InputError(f"model {snapshot.id}: {error}".replace(f"model {snapshot.id}: model", "model")) from None
    file = weights.open_file(snapshot.weights)
    _fill(model, file.state(file.entry_of("state_dict")), snapshot)
    normalisation = processed.normalisation
    if not normalisation.is_same(IMAGENET):
        network = f"normalised:{normalisation.text}:{network}"
    ours = Normalised(transformers_nets.wrapped(model).model, normalisation)
    dataset = "unknown"
    if _are_imagenets(names):
        names, dataset = classes.of("imagenet"), "imagenet"
    card = ModelCard(
        id=snapshot.id,
        network=network,
        dataset=dataset,
        classes=names,
        input_shape=(int(config.get("num_channels", 3)), processed.side, processed.side),
        method="unknown",
        threats=classes.radii_of(dataset),
        weights=snapshot.weights.name,
        weights_notes=tuple(filter(None, (snapshot.note, _size_note(config)))),
        preprocessing=processed.preprocessing,
        text=f"# {snapshot.id}\n\nAn image classifier of transformers ({config.get('model_type')}) from Hugging Face.",
    )
    layers = behind("model", transformers_nets.layers_of(model, other))
    return Victim.frozen(card, ours, layers, file.sha256)


def _fill(model: nn.Module, state: weights.StateDict, snapshot: Snapshot) -> None:
    """Load a state dict through transformers, which knows the names of its older versions; strictly.

    InputError where a weight is missing, left over, of another shape, or not finite.
    """
    path = snapshot.weights
    bad = next((name for name, tensor in state.items() if not bool(torch.isfinite(tensor.float()).all())), None)
    if bad is not None:
        raise InputError(f"weights {weights.shown(path)}: {bad} holds a NaN or an infinity")
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    module: Any = model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            filled, report = type(module).from_pretrained(
                None, config=module.config, state_dict=dict(state), output_loading_info=True, dtype=torch.float32
            )
    except Exception as error:  # a damaged file can bring the loader to raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(f"weights {weights.shown(path)}: transformers does not load them ({reason})") from None
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    missing, extra, wrong = (
        sorted(map(str, report.get(part) or ())) for part in ("missing_keys", "unexpected_keys", "mismatched_keys")
    )
    if missing or extra or wrong:
        raise InputError(
            f"weights {weights.shown(path)}: {len(missing)} names are missing (first: {missing[:3]}), {len(extra)} are "
            f"not the network's (first: {extra[:3]}), {len(wrong)} have another shape (first: {wrong[:3]})"
        )
    module.load_state_dict(filled.state_dict())


def _class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes in the order of their numbers. InputError for a model that does not choose one class of several."""
    if config.get("problem_type") == "multi_label_classification":
        raise InputError(
            "it is a multi-label model (problem_type): each of its logits is a yes or no, and no class is the answer"
        )
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else int(config.get("num_labels", 2))
    if count < 2:
        raise InputError(
            "it has one logit: a binary model z is evaluated as the two logits 0 and z, by python:<module>:<function>"
        )
    numbers = tuple(map(str, range(count)))
    if not isinstance(labels, dict):
        return numbers
    if {str(key) for key in labels} != {*numbers}:
        raise InputError("its id2label does not number the classes 0, 1, ...")
    named = tuple(str(labels.get(number, labels.get(int(number)))) for number in numbers)
    generic = all(name == f"LABEL_{number}" for number, name in zip(numbers, named, strict=True))
    return numbers if generic or len(set(named)) < count else named


def _are_imagenets(names: tuple[str, ...]) -> bool:
    """Whether 1000 names are ImageNet's, as WordNet has them, in ImageNet's order (a few are written differently)."""
    if len(names) != 1000:
        return False
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return sum(name == info.index_to_description(number) for number, name in enumerate(names)) >= 950


def _processed(snapshot: Snapshot, config: Mapping[str, Any]) -> ImageProcessor:
    """What happens to images, by preprocessor_config.json. InputError where it is not there, or contradicts the
    configuration's fixed size."""
    found = of_transformers(hub.read_json(snapshot, hub.PREPROCESSOR))
    side = config.get("image_size")
    channels = int(config.get("num_channels", 3))
    if len(found.normalisation.mean) not in (1, channels):
        raise InputError(
            f"{hub.PREPROCESSOR} normalises {len(found.normalisation.mean)} channels, images have {channels}"
        )
    # Position embeddings have one size, which other types than these do not have.
    fixed = config.get("model_type") in ("vit", "deit", "beit", "data2vec-vision", "vit_msn", "ijepa")
    if fixed and isinstance(side, int) and side != found.side:
        raise InputError(f"{hub.PREPROCESSOR} gives images of {found.side}, config.json is for {side}")
    return found._replace(normalisation=Normalisation(*found.normalisation).spread(channels))


def _size_note(config: Mapping[str, Any]) -> str:
    side = config.get("image_size")
    return f"images of {side} only" if config.get("model_type") in ("vit", "deit", "beit") and side else ""

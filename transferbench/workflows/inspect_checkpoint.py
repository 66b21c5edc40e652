"""`inspect`: what a file of weights holds, which architectures it fits, and the command that evaluates it."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transferbench.base import class_names
from transferbench.base.errors import InputError
from transferbench.models import hub, networks, trained, victims, weights
from transferbench.models.networks import normalised
from transferbench.models.networks.normalised import Normalisation
from transferbench.models.weights import WeightsFile, entries, names
from transferbench.models.weights.selection import normalisation_of
from transferbench.workflows import network_fits
from transferbench.workflows.network_fits import Fit, Shapes

_FORMS = (
    ("Lightning", lambda keys, _: "pytorch-lightning_version" in keys),
    ("MadryLab/robustness", lambda _, all: any("attacker." in name or "normalizer." in name for name in all)),
    ("timm", lambda keys, _: "state_dict" in keys and "arch" in keys and "version" in keys),
    ("DeiT or ConvNeXt", lambda keys, _: {"model", "optimizer", "args"} <= keys),
    ("mmengine", lambda keys, _: {"meta", "state_dict"} <= keys),
    ("pytorch-cifar", lambda keys, _: {"net", "acc"} <= keys),
    ("LoRA adapter of PEFT", lambda _, all: any(".lora_A." in name for name in all)),
    ("torch.compile", lambda _, all: any("_orig_mod." in name for name in all)),
    ("torch's AveragedModel", lambda _, all: "n_averaged" in all),
    ("DataParallel", lambda _, all: bool(all) and all_begin("module.", all)),
)
"""Names of forms with what shows them: the names at the top of the file, and those of all tensors."""


def all_begin(prefix: str, given: set[str]) -> bool:
    """Whether all names begin so."""
    return all(name.startswith(prefix) for name in given)


@dataclass(frozen=True)
class Inspection:
    """The lines to print, without their end; `fits`: the networks of which the file is one exactly."""

    lines: tuple[str, ...]
    fits: tuple[Fit, ...] = ()


def inspect(path: Path) -> Inspection:
    """Look into a file, or into a folder of transformers, timm, PEFT or `train`. InputError where it is none of these,
    or damaged."""
    if os.path.isdir(path):
        return _of_folder(path)
    file = weights.open_file(path)
    lines = [f"file: {weights.shown(path)} ({_container(file)}, {_size(path)})", *_contents(file)]
    form = _form(file)
    if form:
        lines.append(f"form: {form}")
    fits: list[Fit] = []
    near: dict[str, str] = {}
    for place, described in file.entries.items():
        shapes = {name: tuple(tensor.shape) for name, tensor in described.items() if hasattr(tensor, "shape")}
        lines += [f"{place or 'names'}: {line}" for line in _of_entry(file, place, shapes)]
        found, others = network_fits.find(file, place, shapes)
        fits += [one for one in found if one not in fits]
        near |= others
    lines += _conclusion(path, file, fits, near)
    return Inspection(tuple(lines), tuple(fits))


def _container(file: WeightsFile) -> str:
    if file.parts:
        return f"an index of {len(file.parts)} parts"
    return "safetensors" if file.torch_file is None else "torch"


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def _contents(file: WeightsFile) -> list[str]:
    """What is at the top of a torch file besides its tensors."""
    if not isinstance(file.content, dict) or "" in file.entries:
        return []
    parts = []
    for key, value in file.content.items():
        if isinstance(value, str | int | float | bool) or value is None:
            parts.append(f"{key} = {value!r}"[:60])
        else:
            count = len(value) if isinstance(value, dict | list | tuple) else None
            parts.append(f"{key}" if count is None else f"{key} ({count} entries)")
    return [weights.shown(f"holds: {', '.join(parts[:16])}{', ...' if len(parts) > 16 else ''}")]


def _form(file: WeightsFile) -> str:
    keys = {key for key in file.content if isinstance(key, str)} if isinstance(file.content, dict) else set()
    every = {name for described in file.entries.values() for name in described}
    found = [name for name, shows in _FORMS if shows(keys, every)]
    library = entries.default(file.content, file.entries)
    taken = [] if library is None else [f"{library.takes} is taken, {library.why}"]
    return "; ".join([", ".join(found), *taken] if found else taken)


def _of_entry(file: WeightsFile, place: str, shapes: Shapes) -> list[str]:
    """What an entry holds: tensors, what is taken off its names, its classes, its normalisation."""
    bare, said, pairs = names.peeled(shapes)
    count = sum(math.prod(shape) for shape in shapes.values())
    lines = [f"{len(shapes)} tensors, {count / 1e6:.2f} million numbers, {_types(file, place)}"]
    lines += said
    last = [(name, shapes[full]) for name, full in bare.items() if len(shapes[full]) == 2 and name.endswith("weight")]
    head = next((one for one in reversed(last) if _is_head(one[0])), last[-1] if last else None)
    if head is not None:
        lines.append(f"{head[1][0]} classes, if {weights.shown(head[0])} {list(head[1])} is the classifier")
    lines.append(_normalisation(file, place, pairs))
    return lines


def _normalisation(file: WeightsFile, place: str, pairs: Sequence[tuple[str, str]]) -> str:
    """The normalisation in an entry, by the names of its constants, or why it is none that can be taken."""
    state = file.state(place)
    try:
        constants = normalisation_of([(state[mean], state[std]) for mean, std in pairs])
    except InputError as error:
        return weights.shown(str(error))
    if constants is None:
        return "no normalisation inside: the network's own is taken"
    return f"normalisation inside: {Normalisation.of_tensors(*constants).text} (mean/std)"


def _types(file: WeightsFile, place: str) -> str:
    kinds = {str(getattr(tensor, "dtype", "unknown")).removeprefix("torch.") for tensor in file.entries[place].values()}
    return ", ".join(sorted(kinds))


def _is_head(name: str) -> bool:
    return any(part in ("head", "fc", "classifier", "linear", "heads", "logits") for part in name.split("."))


def _conclusion(path: Path, file: WeightsFile, fits: list[Fit], near: Mapping[str, str]) -> list[str]:
    """The networks that fit, and the command to type."""
    lora = any(".lora_A." in name for described in file.entries.values() for name in described)
    if lora:
        words = ["transferbench", "eval", "--model", f"peft:{path.parent}=BASE", "--dataset", "DATASET"]
        return [f"evaluate it: {shlex.join(words)} (BASE is the id of the model that was adapted)"]
    if not fits:
        lines = ["fits exactly: none of the networks of this index"]
        lines += [f"nearly: {id}: {text}" for id, text in near.items()]
        if (path.parent / hub.CONFIG).is_file():
            lines.append(f"config.json beside it: transferbench inspect {shlex.quote(str(path.parent))}")
        lines.append(
            "evaluate it: a function of your own that returns the network: transferbench eval --model "
            "python:<module>:<function>"
        )
        return lines
    ids = list(dict.fromkeys(one.network for one in fits))
    lines = [f"fits exactly: {', '.join(ids[:12])}{', ...' if len(ids) > 12 else ''}"]
    if len(ids) > 1:
        lines.append("several networks have these names and shapes, and only its training tells which one it is")
    for id in ids[: network_fits.MOST_NEAR]:
        of_network = [one for one in fits if one.network == id]
        lines.append(f"evaluate it{f' as {id}' if len(ids) > 1 else ''}: {_command(path, file, of_network)}")
        lines += [f"  {text}" for text in _beside(of_network[0])]
        stated = networks.unstated(id)
        if stated and not of_network[0].normalisation:
            lines.append(f"  {stated}")
    return lines


def _beside(fit: Fit) -> list[str]:
    """What has to be said about a normalisation beside the weights before the network is evaluated."""
    said = []
    for place, found in fit.beside:
        try:
            normalised.check_beside(fit.network, networks.build(fit.network, 2).model, place, found)
        except InputError as error:
            said.append(str(error))
    return said[:1]


def _command(path: Path, file: WeightsFile, fits: list[Fit]) -> str:
    """The command that evaluates the file as one network, with what the user has to choose."""
    words = ["transferbench", "eval", "--model", f"file:{path}", "--network", fits[0].network]
    keys = list(dict.fromkeys(one.key for one in fits if one.key))
    choices = ""
    if keys and entries.default(file.content, file.entries) is None:
        if len(keys) == 1 and ", " not in keys[0]:
            words += ["--weights-key", keys[0]]
        else:
            choices = f" with --weights-key and one of {', '.join(keys)}"
    words += ["--dataset", "DATASET"]
    known = [name for name, own in class_names.named().items() if len(own) == fits[0].classes]
    if fits[0].classes:
        choices += f" (of {fits[0].classes} classes{', as ' + ' or '.join(known) if known else ''})"
    return f"{shlex.join(words)}{choices}"


def _of_folder(folder: Path) -> Inspection:
    """A folder of a model. InputError for any other folder."""
    if (folder / trained.CARD).is_file() and (folder / trained.WEIGHTS).is_file() and _has_card(folder):
        id = victims.path_id(folder)
    elif (folder / hub.ADAPTER).is_file():
        return _of_adapter(folder)
    elif (folder / hub.CONFIG).is_file():
        id = f"hf:{folder}"
    else:
        raise InputError(f"{folder}: this folder has no card, config.json or adapter_config.json: name a file in it")
    victim = victims.load(id)
    card = victim.card
    lines = [
        f"model: {victim.id}, {victim.num_classes} classes ({', '.join(card.classes[:3])}, ...)",
        f"network: {card.network}",
        f"images: {'x'.join(map(str, card.input_shape))}" + (f" ({card.preprocessing})" if card.preprocessing else ""),
        *card.weights_notes,
    ]
    words = ["transferbench", "eval", "--model", id]
    words += ["--dataset", "DATASET"] if card.dataset == "unknown" else []
    return Inspection((*lines, f"evaluate it: {shlex.join(words)}"))


def _of_adapter(folder: Path) -> Inspection:
    """An adapter of PEFT, which needs its base to be evaluated."""
    config = hub.read_json(hub.Snapshot(folder, folder.name), hub.ADAPTER)
    shown = [f"{name} = {config.get(name)!r}" for name in ("peft_type", "r", "lora_alpha", "target_modules")]
    named = config.get("base_model_name_or_path")
    base = f"hf:{named}" if isinstance(named, str) and named else "BASE"
    words = ["transferbench", "eval", "--model", f"peft:{folder}={base}", "--dataset", "DATASET"]
    hint = "" if base != "BASE" else " (BASE is the id of the model that was adapted)"
    return Inspection((weights.shown(f"adapter: {', '.join(shown)}"), f"evaluate it: {shlex.join(words)}{hint}"))


def _has_card(folder: Path) -> bool:
    try:
        trained.card(folder)
    except InputError:
        # A README of a repository of Hugging Face is no card of ours.
        return False
    return True

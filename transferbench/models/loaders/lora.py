"""LoRA adapters of PEFT over a named base: `peft:<folder of the adapter>[=<base model>]`.

The adapter's matrices are multiplied and added to the base's weights, so that the result is a network like its base.
Without a base the one that adapter_config.json names is taken as `hf:<its name>`. Other adapters than plain LoRA are
refused by name.
"""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.models import heads, hub, victims, weights
from transferbench.models.hub import Snapshot
from transferbench.models.networks import transformers_nets
from transferbench.models.victim import Victim

IDS = {"peft": "peft:<folder>[=<base model>], a LoRA adapter of PEFT over a model that is named"}

_PLAIN = {
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "base_model_name_or_path",
    "revision", "auto_mapping", "task_type", "inference_mode", "target_modules", "exclude_modules", "modules_to_save",
    "lora_dropout", "layers_to_transform", "layers_pattern", "bias", "init_lora_weights", "peft_version",
    "megatron_core", "qalora_group_size", "parent_library",
}  # fmt: skip
"""Fields that plain LoRA may have; any other that is set means another computation."""
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The base with the adapter's changes, and with the modules that were trained beside it (a new classifier).

    InputError for another adapter than plain LoRA, without a base, and where names or shapes are not the base's.
    """
    name, _, base_id = id.partition(":")[2].partition("=")
    if not os.path.isdir(name):
        raise InputError(f"model {id}: {name!r} is no folder; write peft:<folder of the adapter>=<base model>")
    adapter = Snapshot(Path(name), file_stem(Path(os.path.abspath(name)).name))
    config = hub.read_json(adapter, hub.ADAPTER)
    try:
        _check(config)
    except InputError as error:
        raise InputError(f"model {id}: {error}") from None
    named = config.get("base_model_name_or_path")
    if not base_id and not (isinstance(named, str) and named):
        raise InputError(f"model {id}: its {hub.ADAPTER} names no base: write peft:{name}=<base model>")
    base_id = base_id or f"hf:{named}"
    base = victims.load(base_id, model_dir, download)
    file = weights.open_file(adapter.weights)
    merged = copy.deepcopy(base.model)
    with weights.reading(file.path):
        count = _merge(merged, base, file.state(""), config)
    names = base.card.classes if count == base.num_classes else tuple(map(str, range(count)))
    card = base.card.model_copy(
        update={
            "id": f"peft:{adapter.name}",
            "source": base.id,
            "classes": names,
            "dataset": base.card.dataset if count == base.num_classes else "unknown",
            "weights": adapter.weights.name,
            "weights_notes": (*base.card.weights_notes, f"LoRA adapter {adapter.name} merged into {base.id}"),
            "text": f"# peft:{adapter.name}\n\nA LoRA adapter of PEFT, merged into `{base.id}`.",
        }
    )
    return Victim.frozen(card, merged, base.layers, weights.digest_of(merged))


def _check(config: Mapping[str, Any]) -> None:
    """InputError for what is not plain LoRA."""
    if config.get("peft_type") != "LORA":
        raise InputError(f"an adapter of type {config.get('peft_type')!r}: plain LoRA is read; merge it with PEFT")
    # False and "none" are what the fields say that are not used.
    others = sorted(
        name for name, value in config.items() if name not in _PLAIN and value not in (None, False, "none", [], {}, "")
    )
    if others:
        raise InputError(f"a LoRA adapter with {', '.join(others)}: plain LoRA is read; merge it with PEFT")
    if config.get("init_lora_weights", True) not in (True, False, "gaussian"):
        raise InputError(
            f"a LoRA adapter of init_lora_weights={config['init_lora_weights']!r}, which changed the base: merge it "
            "with PEFT"
        )
    for pattern in (config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}):
        if not isinstance(pattern, dict) or not all(re.fullmatch(r"[\w.]+", str(key)) for key in pattern):
            raise InputError("a LoRA adapter with a pattern that is no module's name: merge it with PEFT")
    if not isinstance(config.get("lora_alpha"), int | float):
        raise InputError("a LoRA adapter without lora_alpha")


def _merge(model: nn.Module, base: Victim, state: weights.StateDict, config: Mapping[str, Any]) -> int:
    """Add the adapter to the model's weights, in place. Returns its number of classes. Raises InputError for names and
    shapes that are not the model's."""
    parts = _named(model, _inner_names(state))
    own = model.state_dict()
    prefix = _prefix(list(own), [_module(name) for name in parts])
    changed: dict[str, Tensor] = {}
    whole = {name: tensor for name, tensor in parts.items() if not name.endswith((_A, _B))}
    count = _new_head(model, base, {f"{prefix}{name}": tensor for name, tensor in whole.items()})
    own = model.state_dict()
    for name, tensor in whole.items():
        changed[f"{prefix}{name}"] = _checked(f"{prefix}{name}", tensor, own)
    for name, first in parts.items():
        if not name.endswith(_A):
            continue
        module = name.removesuffix(_A)
        second = parts.get(f"{module}{_B}")
        weight = own.get(f"{prefix}{module}.weight")
        if second is None or weight is None:
            raise InputError(f"{name}: the base has no {module}.weight, or the adapter no {module}{_B}")
        changed[f"{prefix}{module}.weight"] = weight + _scale(module, first, config) * _product(first, second, weight)
    lonely = [name for name in parts if name.endswith(_B) and f"{name.removesuffix(_B)}{_A}" not in parts]
    if lonely or not any(name.endswith(_A) for name in parts):
        raise InputError(f"no pairs of lora_A and lora_B in it (first: {(lonely or list(parts))[:2]})")
    if not all(bool(torch.isfinite(tensor.float()).all()) for tensor in changed.values()):
        raise InputError("the adapter holds a NaN or an infinity")
    model.load_state_dict({**own, **changed})
    return count


def _inner_names(state: weights.StateDict) -> weights.StateDict:
    """The tensors by their names in the base. With bias="all" PEFT writes the bias of a classifier as the module's,
    as its copy's, and as the base's, which is no part of the adapter."""
    parts: weights.StateDict = {}
    for name, tensor in state.items():
        if ".original_module." in name:
            continue
        own = _inner(name)
        if own in parts and not torch.equal(parts[own], tensor):
            raise InputError(f"two tensors in it that differ are {own}: merge it with PEFT")
        parts[own] = tensor
    return parts


def _inner(name: str) -> str:
    if not name.startswith(_PREFIX):
        raise InputError(f"{name[:80]} is no name of PEFT's: they begin with {_PREFIX}")
    return re.sub(r"\.(modules_to_save(\.default)?|base_layer)(?=\.)", "", name.removeprefix(_PREFIX))


def _module(name: str) -> str:
    """The module that a name of an adapter belongs to, without `lora_A.weight`, `weight` or `bias`."""
    return name.removesuffix(_A).removesuffix(_B) if name.endswith((_A, _B)) else name.rpartition(".")[0]


def _named(model: nn.Module, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapter's tensors under the names that modules of transformers have in the installed version."""
    renamed = transformers_nets.current_names(model, {_module(name) for name in parts})
    return {
        f"{renamed.get(_module(name), _module(name))}{name.removeprefix(_module(name))}": tensor
        for name, tensor in parts.items()
    }


def _prefix(own: list[str], modules: list[str]) -> str:
    """The part of the base's own names (`model.` of a normalised network) before those of the adapter."""
    for prefix in ("", "model.", "model.model."):
        if all(any(name.startswith(f"{prefix}{module}") for name in own) for module in modules):
            return prefix
    missing = next((module for module in modules if not any(module in name for name in own)), modules[0])
    raise InputError(f"the base has no part {missing}: the adapter is of another network")


def _new_head(model: nn.Module, base: Victim, whole: Mapping[str, Tensor]) -> int:
    """Replace the head where the adapter brings one for another number of classes. Returns the number of classes."""
    weight = whole.get(f"{base.layers.head}.weight") if base.layers.head else None
    if weight is None or weight.dim() != 2 or len(weight) == base.num_classes:
        return base.num_classes
    if len(weight) < 2:
        raise InputError("its classifier has one logit: a binary model z is evaluated as the two logits 0 and z")
    with torch.random.fork_rng(devices=[]):
        heads.linear(model, base.layers, len(weight))
    return len(weight)


def _checked(name: str, tensor: Tensor, own: Mapping[str, Tensor]) -> Tensor:
    if name not in own or own[name].shape != tensor.shape:
        there = f"has the shape {tuple(own[name].shape)}" if name in own else "is not there"
        raise InputError(f"the adapter's {name} has the shape {tuple(tensor.shape)}, in the base it {there}")
    return tensor.to(own[name].dtype)


def _scale(module: str, first: Tensor, config: Mapping[str, Any]) -> float:
    """alpha / r, or alpha / sqrt(r) of rank-stabilised LoRA; r is the adapter's own rank."""
    patterns: Mapping[str, Any] = config.get("alpha_pattern") or {}
    ending = next((key for key in patterns if module == key or module.endswith(f".{key}")), None)
    alpha = float(config["lora_alpha"] if ending is None else patterns[ending])
    rank = first.shape[0]
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _product(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """The change of a weight of a linear layer or a convolution. Raises InputError for other shapes."""
    first, second = first.float(), second.float()
    try:
        change = (second.flatten(1) @ first.flatten(1)).view(weight.shape)
    except RuntimeError:
        raise InputError(
            f"matrices of {tuple(second.shape)} and {tuple(first.shape)} do not make a weight of {tuple(weight.shape)}"
        ) from None
    return change.to(weight.dtype)

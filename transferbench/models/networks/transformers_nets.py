"""Image classifiers of the package transformers: `transformers:<side>:<configuration as JSON>`.

The configuration is a part of the id, so that a victim that was trained from one can be built anywhere from its card
alone. The loader `hf:` (models/loaders/hf.py) writes these ids. The package is the extra `transformers`.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from transferbench.base.errors import InputError
from transferbench.models.features import Layers, behind, find_layers
from transferbench.models.networks import Built
from transferbench.models.networks.normalised import IMAGENET, Normalised
from transferbench.models.outputs import LogitsOf

NORMALISATION = "default"
IDS = {"transformers": "transformers:<side>:<configuration>, an image classifier of transformers, as hf: writes it"}

TYPES = (
    "beit", "bit", "convnext", "convnextv2", "cvt", "data2vec-vision", "deit", "dinat", "dinov2",
    "dinov2_with_registers", "efficientnet", "focalnet", "hgnet_v2", "hiera", "ijepa", "levit", "mobilenet_v1",
    "mobilenet_v2", "mobilevit", "mobilevitv2", "poolformer", "pp_lcnet", "pvt", "pvt_v2", "regnet", "resnet",
    "segformer", "swiftformer", "swin", "swinv2", "textnet", "vit", "vit_msn",
)  # fmt: skip
"""Types whose classifier maps images to logits. Not those of CLIP, which need texts, nor wrappers that download."""
_LEFT_OUT = (
    "transformers_version", "dtype", "torch_dtype", "id2label", "label2id", "num_labels", "_name_or_path",
    "problem_type", "finetuning_task", "_attn_implementation",
)  # fmt: skip
"""What in a configuration does not decide the architecture."""
_REFUSED = ("auto_map", "quantization_config", "backbone", "backbone_config", "use_timm_backbone", "custom_pipelines")
"""What would run code of the repository, load other repositories, or change the weights."""
_ID = re.compile(r"transformers:(\d{1,4}):(\{.*\})", re.DOTALL)


def require() -> None:
    """InputError where the package is not installed."""
    if find_spec("transformers") is None:
        raise InputError(
            "models of Hugging Face need the package transformers: pip install 'transferbench[transformers]'"
        )


def id_of(side: int, config: Mapping[str, Any]) -> str:
    """The id of a configuration, for images of a side. InputError for one that is not built."""
    kept = {name: value for name, value in config.items() if name not in _LEFT_OUT}
    _check(kept)
    return f"transformers:{side}:{json.dumps(kept, sort_keys=True, separators=(',', ':'))}"


def _check(config: Mapping[str, Any]) -> None:
    """InputError for a configuration of another type, or with parts that are not read."""
    kind = config.get("model_type")
    if kind not in TYPES:
        raise InputError(f"a configuration of type {kind!r}: image classifiers of {', '.join(TYPES)} are built")
    refused = next((name for name in _REFUSED if config.get(name)), None)
    if refused is not None:
        raise InputError(f"a configuration with {refused}, which is not read: use python:<module>:<function>")


def classifier(config: Mapping[str, Any], num_classes: int) -> nn.Module:
    """transformers' own module with random weights. InputError where its package refuses the configuration."""
    require()
    _check(config)
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config_class = CONFIG_MAPPING[str(config["model_type"])]
            kept = {name: value for name, value in config.items() if name not in _LEFT_OUT}
            full = config_class.from_dict({**kept, "num_labels": num_classes})
            known = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[config_class]
            candidates = known if isinstance(known, tuple | list) else (known,)
            named = config.get("architectures") or ()
            chosen = next((one for one in candidates if one.__name__ in named), candidates[0])
            model: nn.Module = chosen._from_config(full)
            return model
    except Exception as error:  # a configuration is anybody's text, and its classes check it in their own ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(
            f"transformers does not build this configuration of {config['model_type']}: {reason}"
        ) from None


def build(id: str, num_classes: int) -> Built:
    """The classifier with random weights, behind ImageNet's normalisation. InputError for an id of another form."""
    match = _ID.fullmatch(id)
    config: Any = None
    if match is not None:
        try:
            config = json.loads(match[2])
        except (ValueError, RecursionError):
            config = None
    if match is None or not isinstance(config, dict):
        raise InputError(f"network {id[:60]}: ids of transformers are written by the model hf:<folder or repository>")
    model = classifier(config, num_classes)
    with torch.device("meta"):
        other = classifier(config, num_classes + 1)
    side, channels = int(match[1]), int(config.get("num_channels", 3))
    return Built(wrapped(model), behind("model", layers_of(model, other)), (channels, side, side))


def wrapped(model: nn.Module) -> Normalised:
    """transformers' module as a network of [0,1] pixels."""
    return Normalised(LogitsOf(model, "logits"), IMAGENET)


def layers_of(model: nn.Module, other: nn.Module) -> Layers:
    """The layers of transformers' module in `wrapped`; `other` is the same with another number of classes.

    The head is the one linear layer whose shape depends on the number of classes: of a distilled network there are two.
    """
    prefix = str(getattr(model, "base_model_prefix", ""))
    inner = getattr(model, prefix) if prefix and hasattr(model, prefix) else model
    stages = find_layers(inner).stages
    others = dict(other.named_modules())
    heads = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features != others[name].out_features
    ]
    named = tuple(f"{prefix}.{stage}" for stage in stages) if inner is not model else stages
    return behind("model", Layers(named, heads[0] if len(heads) == 1 else ""))


def current_names(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """{name of a module in any version of transformers: its name in the installed one}; {} for a network that is not
    transformers' (the wrappers of `wrapped` are looked through)."""
    inner: Any = model.model if isinstance(model, Normalised) else model
    inner = inner.model if isinstance(inner, LogitsOf) else inner
    if not type(inner).__module__.startswith("transformers."):
        return {}
    from transformers import conversion_mapping

    renamings = [one for one in conversion_mapping.get_model_conversion_mapping(inner) if _renames(one)]
    renamed = {}
    for name in names:
        current = f"{name}.weight"
        for renaming in renamings:
            current = renaming.rename_source_key(current)[0] or current
        renamed[name] = current.removesuffix(".weight")
    return renamed


def _renames(conversion: Any) -> bool:
    """Whether a conversion of transformers changes a name, and no numbers."""
    return type(conversion).__name__ == "WeightRenaming"


def unstated(id: str) -> str:
    """The normalisation, which a file of weights does not name."""
    return f"input normalised with ImageNet's {IMAGENET.text} (mean/std); another: normalised:<mean>/<std>:<network>"

"""`make index`: write robustbench.json, ImageNet's part of classes.json, and architectures.json, from the installed
robustbench, torchvision and timm."""

from __future__ import annotations

import json
import math
from dataclasses import astuple
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transferbench.base import registry
from transferbench.models import architectures, networks
from transferbench.models.catalogue import classes, robustbench

_TORCHVISION = {("imagenet", "Linf", "Standard_R50"), ("imagenet", "corruptions", "Standard_R50")}


def index() -> list[dict[str, Any]]:
    """The rows of robustbench.json: every entry of the installed package's `model_dicts`, in its order."""
    import timm

    from transferbench.models.loaders.robustbench_package import model_dicts, timm_name

    rows: list[dict[str, Any]] = []
    for dataset, threats in model_dicts().items():
        for threat, models in threats.items():
            for id, entry in models.items():
                files = entry["gdrive_id"]
                key = (dataset.value, threat.value, id)
                on_timm = timm.is_model(timm_name(*key))
                rows.append(
                    {
                        "dataset": dataset.value,
                        "threat": threat.value,
                        "id": id,
                        "files": files if isinstance(files, list) else [files] if files else [],
                        "ensemble": isinstance(files, list),
                        "preprocessing": _preprocessing(*key, entry.get("preprocessing") or ""),
                        "elsewhere": "timm" if on_timm else "torchvision" if key in _TORCHVISION else "",
                    }
                )
    return rows


def _preprocessing(dataset: str, threat: str, id: str, entry: str) -> str:
    """What robustbench's `get_preprocessing` does to images, in its notation; `entry` is the one of `model_dicts`.

    A model of timm has the resizing of its timm configuration, whatever its entry says. Models of small images have
    none.
    """
    import timm

    from transferbench.models.loaders.robustbench_package import timm_name

    name = timm_name(dataset, threat, id)
    if dataset != "imagenet" or not timm.is_model(name):
        return entry
    config = timm.models.get_pretrained_cfg(name)
    assert config is not None
    assert config.interpolation in ("bilinear", "bicubic")
    side = config.input_size[1]
    bicubic = "Bicubic" if config.interpolation == "bicubic" else ""
    return f"{bicubic}Res{math.floor(side / config.crop_pct)}Crop{side}"


def imagenet_classes() -> list[str]:
    """WordNet ids in label order, from robustbench's `imagenet_class_to_id_map.json`."""
    spec = find_spec("robustbench")
    assert spec is not None
    assert spec.origin is not None
    labels = json.loads((Path(spec.origin).parent / "helper_files" / "imagenet_class_to_id_map.json").read_text())
    return sorted(labels, key=labels.__getitem__)


def architecture_ids() -> list[str]:
    """The ids of all networks of the index: one-word networks, torchvision's, timm's and RobustBench's."""
    import timm
    import torchvision.models

    plain = [entry.id for entry in registry.entries("networks").values() if not entry.is_family]
    plain.append("preact-resnet18")
    of_torchvision = [f"torchvision:{name}" for name in torchvision.models.list_models(module=torchvision.models)]
    # RobustBench adds its own models to timm's when it is imported.
    of_timm = [f"timm:{name}" for name in timm.list_models() if not name.endswith(("_linf", "_l2", "_corruptions"))]
    zoo = [row for row in robustbench.entries() if not row.ensemble]
    return [*plain, *of_torchvision, *of_timm, *(f"robustbench:{row.dataset}/{row.threat}/{row.id}" for row in zoo)]


def architecture_rows() -> list[list[Any]]:
    """The rows of architectures.json. Networks that cannot be built in this environment are left out, with a line."""
    rows: list[list[Any]] = []
    for id in architecture_ids():
        try:
            shapes = [
                {name: tuple(tensor.shape) for name, tensor in built.model.state_dict().items()}
                for built in (networks.build_without_weights(id, count) for count in (10, 11))
            ]
            found = architectures.described(id, *shapes)
        except Exception as error:
            print(f"{id}: left out ({str(error).splitlines()[0][:100] if str(error) else type(error).__name__})")
            continue
        rows.append([*astuple(found)])
    return rows


def main() -> None:
    """Write the files."""
    text = ",\n".join(json.dumps(row) for row in architecture_rows())
    architectures.INDEX.write_text(f"[\n{text}\n]\n", encoding="utf-8")
    robustbench.INDEX.write_text(json.dumps(index(), indent=0) + "\n", encoding="utf-8")
    names = json.loads(classes.NAMES.read_text(encoding="utf-8")) | {"imagenet": imagenet_classes()}
    classes.NAMES.write_text(json.dumps(names, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

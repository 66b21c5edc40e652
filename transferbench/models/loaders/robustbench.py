"""RobustBench's models: architectures of the installed package, weights from files in its own layout, loaded strictly.

`<model-dir>/<data set>/<threat>/<id>.pt`, for an ensemble `<id>.pt_m0.pt`, `<id>.pt_m1.pt`, ... RobustBench's loader is
not used: it creates folders, loads some models non-strictly and removes substrings anywhere in a parameter's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transferbench.base.errors import InputError
from transferbench.models import weights
from transferbench.models.catalogue import robustbench
from transferbench.models.catalogue.robustbench import RobustBenchEntry
from transferbench.models.features import find_layers
from transferbench.models.loaders import robustbench_package
from transferbench.models.victim import Victim

IDS = {"RB": "RB_<id>[@<data set>[/<threat>]], any model of RobustBench"}

_LAST = ("Andriushchenko2020Understanding", "Kireev2021Effectiveness")
"""Models whose files hold several networks; RobustBench takes the entry `last`."""
_OLD_SWIN = ("Liu2023Comprehensive_Swin-", "Mo2022When_Swin-", "RodriguezMunoz2024Characterizing_Swin-")
"""Models whose files were written by a timm with the downsampling layers one stage earlier."""
_CONSTANTS = ("mu", "sigma", "mean", "std")
"""Buffers of a normalisation that some files lack: the constructors' values are used."""
_UNUSED = (".scores",)
"""Pruning scores of the CARD networks: the pruned weights are zero in the file already."""
_UNUSED_PARTS = ("model_preact_hl1.",)
"""A second copy of the first layers in some adversarially trained networks, which no forward pass uses."""


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The network with the weights below `model_dir`. InputError for a missing file, before robustbench is imported."""
    entry = robustbench.resolve(id)
    paths = [(model_dir or Path("models")) / path for path in entry.paths]
    missing = [path for path in paths if not path.is_file()]
    if missing and not download:
        raise InputError(_missing_message(id, entry, missing[0]))
    if missing:
        weights.fetch(paths, lambda number, path: _download(entry, number, path), lambda files: _network(entry, files))
    model = _network(entry, paths)
    card = robustbench.card(entry.name)
    assert card is not None
    card = card.model_copy(update={"weights_notes": _notes(entry, paths)})
    return Victim.frozen(card, model, find_layers(model, ensemble=entry.ensemble), weights.sha256_of_all(paths))


def _missing_message(id: str, entry: RobustBenchEntry, path: Path) -> str:
    if entry.elsewhere:
        how = f"its weights are {entry.elsewhere}'s own: --download takes them from there"
    elif not entry.files:
        how = "robustbench names no download for it"
    else:
        how = (
            f"put it there, or add --download (Google Drive {entry.files[0]}{', ...' if len(entry.files) > 1 else ''})"
        )
    return f"model {id} is {entry.name}: there are no weights at {path} (--model-dir); {how}"


def _download(entry: RobustBenchEntry, number: int, path: Path) -> None:
    """Download the entry's file of that number to the path."""
    if entry.elsewhere == "torchvision":
        from torchvision.models import ResNet50_Weights

        torch.save(ResNet50_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True), path)
    elif entry.elsewhere == "timm":
        import timm

        robustbench_package.model_dicts()
        name = robustbench_package.timm_name(entry.dataset, entry.threat, entry.id)
        torch.save(timm.create_model(name, pretrained=True).state_dict(), path)
    else:
        import gdown

        if gdown.download(id=entry.files[number], output=str(path), quiet=False) is None or not path.is_file():
            raise InputError(f"model {entry.name}: Google Drive gave no file for {entry.files[number]}")


def _key(entry: RobustBenchEntry) -> str:
    """The entry of a network's file that RobustBench's own loader takes, where the file has it."""
    return "last" if entry.id.startswith(_LAST) else "state_dict"


def _notes(entry: RobustBenchEntry, paths: Sequence[Path]) -> tuple[str, ...]:
    """What the card says about a network's file with several state dicts."""
    if entry.ensemble:
        return ()
    file = weights.open_file(paths[0])
    taken = file.entry_of(_key(entry))
    others = [place for place in file.entries if place != taken]
    return (f"entry {taken}, which RobustBench takes (also there: {', '.join(others)})",) if others else ()


def _network(entry: RobustBenchEntry, paths: Sequence[Path]) -> nn.Module:
    """The entry's network with the files' weights."""
    model = robustbench_package.construct(entry)
    if not entry.ensemble:
        state = weights.read(paths[0], _key(entry))
        if entry.id.startswith(_OLD_SWIN):
            state = _rename_swin(state, model)
        _load(model, state, paths[0])
        return model
    for number, path in enumerate(paths):
        for part, name in _parts(entry, model, number):
            state = weights.read(path, name or "state_dict")
            if entry.id == "Bai2024MixedNUTS" and entry.dataset == "imagenet" and number == 1:
                state = _rename_swin(state, part)
            _load(part, state, path)
    return model


def _load(part: nn.Module, state: weights.StateDict, path: Path) -> None:
    state = {name: tensor for name, tensor in state.items() if not any(unused in name for unused in _UNUSED_PARTS)}
    weights.load_strictly(part, weights.match_names(part, state, _UNUSED, _CONSTANTS), path)


def _rename_swin(state: weights.StateDict, model: nn.Module) -> weights.StateDict:
    """The state dict of a Swin network under the names of the installed timm, which moved the downsampling layers."""
    from timm.models.swin_transformer import checkpoint_filter_fn

    bare = {name.removeprefix("module.").removeprefix("model."): tensor for name, tensor in state.items()}
    inner = getattr(model, "model", model)
    renamed: weights.StateDict = checkpoint_filter_fn(bare, inner)
    if inner is model:
        return renamed
    # Behind the normalisation, whose constants keep their own names.
    own = model.state_dict()
    return {name if name in own else f"model.{name}": tensor for name, tensor in renamed.items()}


def _parts(entry: RobustBenchEntry, model: Any, number: int) -> list[tuple[nn.Module, str]]:
    """The modules that a file of an ensemble belongs to, each with its key in the file ('' for the whole file)."""
    if entry.id.startswith("Bai2023Improving"):
        mixed = model.comp_model
        return [(mixed.models[number], "")] if number < 2 else [(mixed.policy_net, "model"), (mixed.bn, "bn")]
    if entry.id.startswith("Bai2024MixedNUTS"):
        return [((model.std_model, model.rob_model)[number], "")]
    return [(model.models[number], "")]

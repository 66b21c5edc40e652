"""RobustBench's models: architecture from the installed package, weights from files in its own layout, strictly.

`<model-dir>/<data set>/<threat>/<id>.pt`, for an ensemble `<id>.pt_m0.pt`, `<id>.pt_m1.pt`, ... Its own loader is
not used: it makes folders, loads some models non-strictly and cuts substrings anywhere in a name.
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
from transferbench.models.catalogue.robustbench import Entry
from transferbench.models.features import find_layers
from transferbench.models.loaders import robustbench_package
from transferbench.models.victim import Victim

IDS = {"RB": "RB_<id>[@<data set>[/<threat>]], any model of RobustBench"}

_LAST = ("Andriushchenko2020Understanding", "Kireev2021Effectiveness")
"""Their files hold several networks; the last one is RobustBench's choice."""
_OLD_SWIN = ("Liu2023Comprehensive_Swin-", "Mo2022When_Swin-", "RodriguezMunoz2024Characterizing_Swin-")
"""Their files were written by a timm that kept the downsampling one stage earlier."""
_CONSTANTS = ("mu", "sigma", "mean", "std")
"""Normalisation that constructors register as buffers; some files were saved before they did."""
_SPARE = (".scores",)
"""Pruning scores of the CARD networks: what they selected is already zero in the weights beside them."""
_SPARE_PARTS = ("model_preact_hl1.",)
"""A second copy of the first layers that some adversarially trained networks carry for analysis."""


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """InputError, before anything is imported or made, when the files are not there."""
    entry = robustbench.resolve(id)
    paths = [(model_dir or Path("models")) / path for path in entry.paths]
    missing = [path for path in paths if not path.is_file()]
    if missing and not download:
        raise InputError(_absent(id, entry, missing[0]))
    if missing:
        weights.fetch(paths, lambda number, path: _get(entry, number, path), lambda fetched: _filled(entry, fetched))
    model = _filled(entry, paths)
    digest = weights.sha256_of_all(paths)
    card = robustbench.card(entry.name)
    assert card is not None
    return Victim(
        card.model_copy(update={"sha256": digest}),
        model.eval().requires_grad_(False),
        find_layers(model, ensemble=entry.ensemble),
        digest,
    )


def _absent(id: str, entry: Entry, path: Path) -> str:
    if entry.elsewhere:
        how = f"its weights are {entry.elsewhere}'s own: --download takes them from there"
    elif not entry.files:
        how = "robustbench names no download for it"
    else:
        how = (
            f"put it there, or add --download (Google Drive {entry.files[0]}{', ...' if len(entry.files) > 1 else ''})"
        )
    return f"model {id} is {entry.name}: there are no weights at {path} (--model-dir); {how}"


def _get(entry: Entry, number: int, path: Path) -> None:
    """Download the entry's k-th file to the path."""
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


def _filled(entry: Entry, paths: Sequence[Path]) -> nn.Module:
    """The entry's network with the files' weights."""
    model = robustbench_package.construct(entry)
    if not entry.ensemble:
        inside = ("last",) if entry.id.startswith(_LAST) else ("state_dict",)
        state = weights.read(paths[0], inside)
        if entry.id.startswith(_OLD_SWIN):
            state = _renamed_swin(state, model)
        _load(model, state, paths[0])
        return model
    for number, path in enumerate(paths):
        for part, name in _parts(entry, model, number):
            state = weights.read(path, (name,) if name else ("state_dict",))
            if entry.id == "Bai2024MixedNUTS" and entry.dataset == "imagenet" and number == 1:
                state = _renamed_swin(state, part)
            _load(part, state, path)
    return model


def _load(part: nn.Module, state: weights.State, path: Path) -> None:
    state = {name: tensor for name, tensor in state.items() if not any(spare in name for spare in _SPARE_PARTS)}
    weights.load_strictly(part, weights.match_names(part, state, _SPARE, _CONSTANTS), path)


def _renamed_swin(state: weights.State, model: nn.Module) -> weights.State:
    """Swin checkpoints under the names of this timm, which has moved its downsampling layers."""
    from timm.models.swin_transformer import checkpoint_filter_fn

    bare = {name.removeprefix("module.").removeprefix("model."): tensor for name, tensor in state.items()}
    inner = getattr(model, "model", model)
    renamed: weights.State = checkpoint_filter_fn(bare, inner)
    return renamed


def _parts(entry: Entry, model: Any, number: int) -> list[tuple[nn.Module, str]]:
    """Which modules the k-th file of an ensemble fills, and under which name in the file ('' for all of it)."""
    if entry.id.startswith("Bai2023Improving"):
        mixed = model.comp_model
        return [(mixed.models[number], "")] if number < 2 else [(mixed.policy_net, "model"), (mixed.bn, "bn")]
    if entry.id.startswith("Bai2024MixedNUTS"):
        return [((model.std_model, model.rob_model)[number], "")]
    return [(model.models[number], "")]

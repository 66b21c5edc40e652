"""Which networks of the index of architectures the tensors of a file are, exactly or nearly."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from transferbench.base.errors import InputError
from transferbench.models import architectures, networks, weights
from transferbench.models.networks.normalised import Normalisation
from transferbench.models.weights import WeightsFile, names

_MOST_FITS, _MOST_BUILT, MOST_NEAR = 24, 10, 3
"""Networks of a file's names and shapes that are built to be compared with it, and such near it, at most; three are
named."""
_LOWER_SIDE, _UPPER_SIDE = 8, 2048

_LEAVES_OUT = re.compile(r"; #(\S+\.) leaves these out")
Shapes = dict[str, tuple[int, ...]]


class Fit(NamedTuple):
    """A network that a file fits: its id, what names the file's network (--weights-key), empty where there is one, and
    what is said when it is loaded."""

    network: str
    key: str
    notes: tuple[str, ...]
    normalisation: str
    classes: int
    beside: tuple[tuple[str, Normalisation], ...] = ()
    """Normalisations that stand beside the weights."""


def find(file: WeightsFile, place: str, shapes: Shapes) -> tuple[list[Fit], dict[str, str]]:
    """(networks of the index that the entry fits, those near it with the first difference)."""
    fits: list[Fit] = []
    near: dict[str, str] = {}
    for candidate in _groups(shapes):
        proposed = architectures.exact(candidate)
        fits += [fit for id in proposed[:_MOST_FITS] if (fit := _fit(file, place, id)) is not None]
        if fits:
            continue
        compared: list[tuple[int, str, str]] = []
        for id in architectures.near(candidate, _MOST_BUILT):
            sized = _sized(id, candidate)
            fit = None if sized is None else _fit(file, place, sized)
            if fit is not None:
                fits.append(fit)
            elif not fits:
                compared.append(_difference(id, candidate))
        near |= {id: text for _, id, text in sorted(compared)[:MOST_NEAR]}
    return fits, {} if fits else near


def _groups(shapes: Shapes) -> list[Shapes]:
    """The tensors that may be one network: all of them, else those behind every first part of their names."""
    bare, _, _ = names.peeled(shapes)
    whole = {name: shapes[full] for name, full in bare.items()}
    parts: dict[str, Shapes] = {}
    for name, shape in whole.items():
        first, dot, rest = name.partition(".")
        if dot:
            parts.setdefault(first, {})[rest] = shape
    large = [part for part in parts.values() if 4 <= len(part) < len(whole)]
    return [one for one in (whole, *sorted(large, key=len, reverse=True)[:4]) if one]


def _fit(file: WeightsFile, place: str, id: str, prefix: str = "") -> Fit | None:
    """The entry as a network, as it would be loaded, behind a prefix if it has names beside it; None where it does not
    fit."""
    key = "/".join(part for part in (place if len(file.entries) > 1 or prefix else "", prefix) if part) or None
    try:
        built = networks.build_without_weights(id, 10)
        selection = weights.select(file, built.model, key)
    except InputError as error:
        # Several networks behind prefixes, or names beside the only one: the message has the keys.
        choices = str(error).partition("behind the path): ")[2]
        behind = _LEAVES_OUT.search(str(error))
        if behind is not None and not prefix:
            return _fit(file, place, id, behind[1])
        return Fit(id, choices, (), "", 0) if choices else None
    own = built.model.state_dict()
    wrong = [
        name for name, tensor in selection.state.items()
        if tuple(tensor.shape[1:]) != tuple(own[name].shape[1:]) or tensor.dim() != own[name].dim()
    ]  # fmt: skip
    if wrong:
        return None
    head = selection.state.get(f"{built.layers.head}.weight")
    found = "" if selection.normalisation is None else Normalisation.of_tensors(*selection.normalisation).text
    beside = tuple((place, Normalisation.of_tensors(*constants)) for place, constants in selection.beside)
    return Fit(id, key or "", selection.notes, found, 0 if head is None else len(head), beside)


def _sized(id: str, shapes: Shapes) -> str | None:
    """A ViT of timm for the images' side and the patch size that a file's position embeddings have."""
    if not id.startswith("timm:"):
        return None
    patches = next((shape for name, shape in shapes.items() if name.endswith("patch_embed.proj.weight")), None)
    positions = next((shape for name, shape in shapes.items() if name.endswith("pos_embed")), None)
    if patches is None or positions is None or len(patches) != 4 or len(positions) != 3:
        return None
    for extra in (1, 0, 2):
        grid = math.isqrt(max(positions[1] - extra, 0))
        side = grid * patches[-1]
        if grid and grid * grid == positions[1] - extra and _LOWER_SIDE <= side <= _UPPER_SIDE:
            return f"{id}@{side}/{patches[-1]}"
    return None


def _difference(id: str, shapes: Shapes) -> tuple[int, str, str]:
    """(number of differences, id, the first of them) between a network and a file's tensors."""
    model = networks.build_without_weights(id, 10).model
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    prefix = names.common_prefix(names.required(model, shapes))
    bare = {name.removeprefix(prefix): shape for name, shape in own.items() if not name.endswith(names.COUNTER)}
    given = {name: shape for name, shape in shapes.items() if not name.endswith(names.COUNTER)}
    missing, extra = sorted(bare.keys() - given.keys()), sorted(given.keys() - bare.keys())
    other = [name for name in bare if name in given and bare[name] != given[name]]
    parts = [f"{len(missing)} names are missing (first: {missing[0]})"] if missing else []
    parts += [f"{len(extra)} are not the network's (first: {weights.shown(extra[0])})"] if extra else []
    if other:
        name = other[0]
        parts.append(f"{len(other)} have other shapes (first: {name} {list(given[name])}, not {list(bare[name])})")
    return len(missing) + len(extra) + len(other), id, "; ".join(parts)

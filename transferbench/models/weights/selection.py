"""Takes a network's state dict out of a checkpoint, and says what was chosen, taken off and left out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models.weights import entries, names
from transferbench.models.weights.names import Match
from transferbench.models.weights.weights_file import StateDict, WeightsFile, reading


@dataclass(frozen=True)
class Selection:
    """`state` under the network's names. `place`: the entry among several, else empty. `sha256`: the file's, or where
    the file has several state dicts a hash of the file's and the place. `notes`: one line for every choice."""

    state: StateDict
    place: str
    sha256: str
    notes: tuple[str, ...]


def select(file: WeightsFile, model: nn.Module, entry: str | None = None) -> Selection:
    """The state dict of the checkpoint that has the network's names.

    `entry` names it where there are several (`state_dict_ema`), or the prefix that the network is behind (`ema.`,
    `state_dict/ema.`); without one the first of entries.DEFAULTS is taken. InputError where none fits, or none
    is the default.
    """
    place, prefix = _split(entry)
    matches: dict[str, Match] = {}
    for candidate, described in file.entries.items():
        found = names.match(model, described, prefix)
        if found is not None:
            matches[candidate] = found
    with reading(file.path):
        if not matches:
            raise InputError(_misfit(file, model, entry))
        chosen = entries.choose(list(matches), place)
        digest = sha256_of(file.path)
    match, state = matches[chosen], file.state(chosen)
    notes = [_choice(chosen, list(matches))] if len(matches) > 1 else []
    notes += match.notes
    if match.normalisation:
        with reading(file.path):
            notes.append(_check_normalisation(model, [(name, state[name]) for name in match.normalisation]))
    label = ""
    if len(matches) > 1 or match.copies or prefix is not None:
        label = "/".join(part for part in (chosen, prefix) if part)
        digest = hashlib.sha256(f"{digest} {label}".encode()).hexdigest()
    return Selection({own: state[name] for own, name in match.names.items()}, label, digest, tuple(notes))


def _split(entry: str | None) -> tuple[str | None, str | None]:
    """(place, prefix) of an entry as a user writes it: what ends with a dot is a prefix."""
    if entry is None or not entry.endswith("."):
        return entry, None
    place, slash, prefix = entry.rpartition("/")
    return (place if slash else None), prefix


def _choice(chosen: str, places: list[str]) -> str:
    others = ", ".join(place or "the whole file" for place in places if place != chosen)
    return f"entry {chosen or 'the whole file'} of several (also there: {others}; #<entry> or --weights-key takes one)"


def _misfit(file: WeightsFile, model: nn.Module, entry: str | None) -> str:
    """Why no state dict of the file fits the network, by the one that would have been taken."""
    places = list(file.entries)
    place = _split(entry)[0]
    if place is not None and place not in places:
        return f"no state dict {place!r}; there is {', '.join(one or 'the whole file' for one in places[:12])}"
    nearest = place if place is not None else max(places, key=lambda one: len(file.entries[one]))
    bare, _ = names.unwrapped(model, file.entries[nearest])
    fitting = names.prefixes(model, bare)[1]
    if entry is not None and entry.endswith("."):
        return f"the network's names are not behind {_split(entry)[1]!r}" + (f", but {fitting}" if fitting else "")
    common = [prefix for prefix in fitting if set(prefix.split(".")[:-1]) <= set(names.ATTRIBUTES)]
    if fitting and not common:
        return f"the network's names are behind {fitting[0]!r}: say #{fitting[0]} to take these"
    missing, extra = names.differences(model, file.entries[nearest])
    return (
        f"{len(missing)} names are missing (first: {missing[:3]}), {len(extra)} are not the network's (first: "
        f"{extra[:3]})" + (f"; #{common[0]} leaves these out" if common and common[0] else "")
    )


def _check_normalisation(model: nn.Module, entries: list[tuple[str, Tensor]]) -> str:
    """A note that the file's normalisation is the network's. InputError where it is another."""
    for name, tensor in entries:
        constant = "std" if name.endswith("std") else "mean"
        own = getattr(model, constant, None)
        values = tensor.detach().float().flatten()
        identity = torch.full_like(values, float(constant == "std"))
        expected = own.detach().float().flatten() if isinstance(own, Tensor) else identity
        if values.shape != expected.shape or not torch.allclose(values, expected, atol=1e-3):
            raise InputError(
                f"trained behind the normalisation {name} = {_rounded(values)}, the network has {_rounded(expected)}: "
                "load it with python:<module>:<function>"
            )
    return "the file's normalisation is the network's"


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values[:3].tolist()]

"""Takes a network's state dict out of a checkpoint, and says what was chosen, taken off and left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.models.weights import averages, constants_beside, entries, names
from transferbench.models.weights.names import Match
from transferbench.models.weights.weights_file import StateDict, WeightsFile, reading


class Constants(NamedTuple):
    """Mean and deviation of a normalisation that a file contains, float32 [1] or [C]."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Selection:
    """`state` under the network's names. `place`: the entry among several, else empty. `sha256`: the file's, or where
    the file has several networks a hash of the file's and the place. `notes`: one line for every choice.
    `normalisation`: the file's own, which is not among the state's names. `beside`: places and constants of
    normalisations that stand beside the weights, of which nothing says that they are the network's."""

    state: StateDict
    place: str
    sha256: str
    notes: tuple[str, ...]
    normalisation: Constants | None = None
    beside: tuple[tuple[str, Constants], ...] = ()


class Reading(NamedTuple):
    """The entry of a file at a place, and one way in which its names are a network's."""

    place: str
    match: Match

    @property
    def key(self) -> str:
        """What names it behind `#` or after --weights-key."""
        return "/".join(part for part in (self.place, self.match.prefix) if part)


def select(file: WeightsFile, model: nn.Module, entry: str | None = None) -> Selection:
    """The state dict of the checkpoint that has the network's names and shapes.

    `entry` names it where there are several (`state_dict_ema`), or the prefix that the network is behind (`ema.`,
    `state_dict/ema.`); without one, of several that fit and are not the same, the one that the library takes which
    wrote the file. InputError where none fits, or where no library says which one.
    """
    place, prefix = _split(entry)
    with reading(file.path):
        every = _readings(file, model, prefix)
        found = [one for one in every if place in (None, one.place)]
        if not found:
            raise InputError(_misfit(file, model, entry))
    chosen, line = _chosen(file, found, entry)
    match, state = chosen.match, file.state(chosen.place)
    with reading(file.path):
        normalisation = normalisation_of([(state[mean], state[std]) for mean, std in match.normalisation])
        digest = file.sha256
    label = ""
    if line or prefix is not None or (entry is not None and len(every) > 1):
        # Two networks of one file are not found by one hash, nor by one name.
        label = chosen.key if prefix is not None or len({one.place for one in every}) == 1 else chosen.place
        line = line or f"entry {label}, as asked for"
        digest = hashlib.sha256(f"{digest} {label}".encode()).hexdigest()
    notes = ([line] if line else []) + list(match.notes)
    taken = {own: state[name] for own, name in match.names.items()}
    if entry is None and not line and chosen.key:
        with reading(file.path):
            _check_alone(file, model, taken, chosen)
    beside = tuple((place, Constants(mean, std)) for place, mean, std in constants_beside.beside(file))
    return Selection(taken, label, digest, tuple(notes), normalisation, beside)


def _readings(file: WeightsFile, model: nn.Module, prefix: str | None) -> list[Reading]:
    """Every reading of the file by names; of these, where there are any, only those by shapes as well."""
    found = [
        Reading(place, match)
        for place, described in file.entries.items()
        for match in names.readings(model, described, prefix)
    ]
    fitting = [one for one in found if _has_shapes(one.match, file.entries[one.place], model)]
    return fitting or found


def _has_shapes(match: Match, described: Mapping[str, Any], model: nn.Module) -> bool:
    """Whether every tensor has its shape, but for the number of classes: the first dimension of as many."""
    for name, own in model.state_dict().items():
        if name not in match.names:
            continue
        shape = getattr(described[match.names[name]], "shape", None)
        if shape is None or len(shape) != own.dim() or tuple(shape[1:]) != tuple(own.shape[1:]):
            return False
    return True


def _chosen(file: WeightsFile, found: list[Reading], entry: str | None) -> tuple[Reading, str]:
    """(the reading that is taken, what is said where there was a choice). InputError where nobody has made it."""
    first = found[0]
    library = entries.default(file.content, file.entries)
    if entry is None and library is not None and all(one.place != library.takes for one in found):
        with reading(file.path):
            raise InputError(
                f"its library takes {library.takes} ({library.why}), which does not fit the network; "
                f"--weights-key (or # and it behind the path): {entries.listed(_keys(found))}"
            )
    if all(_are_same(file, first, one) for one in found[1:]):
        return first, ""
    if library is not None and entry is None:
        taken = [one for one in found if one.place == library.takes]
        if taken and all(_are_same(file, taken[0], one) for one in taken[1:]):
            rest = entries.listed(_keys([one for one in found if one.place != library.takes]))
            return (
                taken[0],
                f"entry {library.takes}, {library.why} (also there: {rest}; #<entry> or --weights-key takes one)",
            )
    if entry is not None and first.match.prefix == "":
        # The entry that was named is a network by itself, whatever else is in it.
        return first, ""
    with reading(file.path):
        raise InputError(
            "several networks fit, which differ, and nothing says which one was evaluated: name one with --weights-key "
            f"(or # and it behind the path): {entries.listed(_keys(found))}"
        )


def _check_alone(file: WeightsFile, model: nn.Module, taken: StateDict, chosen: Reading) -> None:
    """InputError where an average of the network's parameters stands beside the network that would be taken."""
    beside = averages.beside(file, model, taken, chosen.place)
    if beside:
        raise InputError(
            f"beside the network there is what may be an average of its parameters ({entries.listed(beside)}), and "
            "nothing says which one was evaluated: copy the average into the network and save its state_dict(), or "
            f"take the network as it is, with --weights-key (or # and it behind the path): {chosen.key}"
        )


def _keys(found: list[Reading]) -> list[str]:
    """What names each of the readings: its entry, or where one has several of them with the prefix as well."""
    places = [one.place for one in found]
    return [one.place if one.place and places.count(one.place) == 1 else one.key for one in found]


def _are_same(file: WeightsFile, first: Reading, second: Reading) -> bool:
    """Whether two readings give the same numbers, and the same normalisation in front."""
    one, other = file.state(first.place), file.state(second.place)
    constants = [
        {tuple(torch.cat([state[mean].flatten(), state[std].flatten()]).tolist()) for mean, std in match.normalisation}
        for state, match in ((one, first.match), (other, second.match))
    ]
    return constants[0] == constants[1] and all(
        name in second.match.names and _is_same(one[own], other[second.match.names[name]])
        for name, own in first.match.names.items()
    )


def _is_same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)


def _split(entry: str | None) -> tuple[str | None, str | None]:
    """(place, prefix) of an entry as a user writes it: what ends with a dot is a prefix."""
    if entry is None or not entry.endswith("."):
        return entry, None
    place, slash, prefix = entry.rpartition("/")
    return (place if slash else None), prefix


def _misfit(file: WeightsFile, model: nn.Module, entry: str | None) -> str:
    """Why no state dict of the file fits the network, by the one that would have been taken."""
    places = list(file.entries)
    place, prefix = _split(entry)
    if place is not None and place not in places:
        return f"no state dict {place!r}; there is {entries.listed(places)}"
    nearest = place if place is not None else max(places, key=lambda one: len(file.entries[one]))
    described = file.entries[nearest]
    if any(".lora_A." in name for name in described):
        return "a LoRA adapter of PEFT, without its base: write the model as peft:<folder of the adapter>=<base model>"
    bare, _ = names.unwrapped(model, described)
    fitting = names.prefixes(model, bare)[1]
    if prefix is not None:
        return f"the network's names are not behind {prefix!r}" + (f", but {fitting}" if fitting else "")
    missing, extra = names.differences(model, described)
    return (
        f"{len(missing)} names are missing (first: {missing[:3]}), {len(extra)} are not the network's (first: "
        f"{extra[:3]})"
        + (f"; #{fitting[0]} leaves these out" if fitting and fitting[0] else "")
        + (_neighbours(file.path) or "; `transferbench inspect` names the networks that it fits")
    )


def _neighbours(path: Path) -> str:
    """What another file in the folder says about this one."""
    if any(f"-of-{digits:05d}" in path.name for digits in range(1, 1000)):
        return "; this is one part of several: name their index (.index.json)"
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    if isinstance(config, dict) and ("model_type" in config or "architecture" in config):
        return f"; config.json beside it is of Hugging Face: the model is hf:{path.parent}"
    return ""


def normalisation_of(pairs: list[tuple[Tensor, Tensor]]) -> Constants | None:
    """The normalisation in a file. InputError for two different ones, and for constants of no normalisation of [0,1]
    pixels."""
    found: list[Constants] = []
    for mean, std in pairs:
        one = Constants(mean.detach().float().flatten(), std.detach().float().flatten())
        if one.mean.shape != one.std.shape or not 1 <= len(one.mean) <= 4:
            raise InputError(f"a mean of shape {tuple(mean.shape)} and a deviation of {tuple(std.shape)} in the file")
        if not bool(torch.isfinite(torch.cat(one)).all()) or float(one.std.min()) <= 0 or float(one.mean.min()) < 0:
            raise InputError(f"a normalisation that is none: mean {_rounded(one.mean)}, deviation {_rounded(one.std)}")
        if float(torch.cat(one).max()) > 1:
            raise InputError(
                f"a normalisation of pixels in 0..255 (mean {_rounded(one.mean)}, deviation {_rounded(one.std)}): here "
                "pixels are in [0,1]; name the network normalised:<mean/255>/<std/255>:<network>, and --weights-key "
                "with the prefix that it is behind"
            )
        found.append(one)
    for other in found[1:]:
        if not (torch.equal(other.mean, found[0].mean) and torch.equal(other.std, found[0].std)):
            raise InputError(
                f"two normalisations in the file, of mean {_rounded(found[0].mean)} and {_rounded(other.mean)}: name "
                "one with the network, normalised:<mean>/<std>:<network>"
            )
    return found[0] if found else None


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values[:3].tolist()]

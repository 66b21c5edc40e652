"""Matches the names of a state dict with a network's own, and says what was taken off or left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from transferbench.models.weights import renamings

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_module")
"""Parts of names that are no part of a network, wherever they are: DataParallel, torch.compile, FSDP, Opacus."""
ATTRIBUTES = ("model", "net", "network")
"""Attributes that RobustBench's files keep their networks under."""
LEFTOVERS = re.compile(r"(^|\.)(total_ops|total_params|n_averaged)$|(^|\.)model_preact_hl1\.")
"""What no forward pass uses: thop's counters, an averaged model's, and a second copy of the first layers in
adversarially trained networks of fast_at and robust-finetuning."""
TRAINING = re.compile(
    r"(^|\.)(attacker|attack|adversary|criterion|loss|losses|loss_fn|loss_func|loss_function|optimi[sz]er|metrics?|"
    r"(train|val|valid|validation|test)_(acc|accuracy|metrics?|loss|auroc|f1))\."
)
"""Parts of names of a training module that are no part of its network: attackers, losses, metrics."""
CONSTANTS = (("mean", "std"), ("new_mean", "new_std"), ("mu", "sigma"), ("_mean", "_std"), ("means", "stds"))
"""Names of the mean and the deviation of a normalisation, as last parts of two names."""
_NORMALISER = re.compile(
    r"(?!.*(noise|target|output|label|feat)).*(norm|preproc|transform|standard|input|scaler)", re.IGNORECASE
)
"""Names of modules that normalise the input, where they stand beside the network."""
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Match:
    """One reading of a file's names: `names`: the network's name -> the file's, which are behind `prefix`.

    `notes`: what was taken off the file's names, or left out. `normalisation`: the file's names of the mean and the
    deviation of every normalisation in it.
    """

    names: dict[str, str]
    prefix: str
    notes: tuple[str, ...] = ()
    normalisation: tuple[tuple[str, str], ...] = ()


def required(model: nn.Module, names: Iterable[str], constants: Iterable[str] = ()) -> set[str]:
    """The names of a network that a file must have. Not those of batch counters where a file has none of them (files of
    torch before 0.4.1, as torch's own strict loading), and not the buffers that end with one of `constants`."""
    own = set(model.state_dict())
    counted = any(name.endswith(COUNTER) for name in names)
    buffers = own - dict(model.named_parameters()).keys()
    excused = {name for name in buffers if name.endswith(tuple(constants) or ("\0",))}
    return own - excused - ({name for name in own if name.endswith(COUNTER)} if not counted else set())


def prefixes(model: nn.Module, names: Iterable[str], constants: Iterable[str] = ()) -> tuple[str, list[str]]:
    """(the part before all of the network's own names, prefixes in the file behind which all names are)."""
    present = set(names)
    needed = required(model, present, constants)
    added = common_prefix(needed)
    bare = [name.removeprefix(added) for name in needed]
    if not bare:
        return "", [""]
    anchor = max(bare, key=lambda name: (len(name), name))
    candidates = {name.removesuffix(anchor) for name in present if name.endswith(anchor)}
    fitting = [
        prefix
        for prefix in sorted(candidates, key=lambda prefix: (len(prefix), prefix))
        if (not prefix or prefix.endswith(".")) and all(f"{prefix}{name}" in present for name in bare)
    ]
    return added, fitting


def common_prefix(names: Iterable[str]) -> str:
    """The whole parts that all names begin with: `model.` of `model.conv.weight` and `model.conv.bias`. The layer of a
    network of one layer is no part of it, so that a name keeps its last two parts; but for `model`."""
    parts = [name.split(".") for name in names]
    count = 0
    while parts and all(
        len(one) > count + 2 - (one[count] == "model") and one[count] == parts[0][count] for one in parts
    ):
        count += 1
    return "".join(f"{part}." for part in parts[0][:count]) if parts else ""


def readings(
    model: nn.Module,
    names: Iterable[str],
    prefix: str | None = None,
    unused: Iterable[str] = (),
    constants: Iterable[str] = (),
) -> list[Match]:
    """Every way in which the names of a file belong to the network, the shortest prefix first.

    Without a `prefix` every name of the file must be used, or be a LEFTOVER, a part of TRAINING, a normalisation, or of
    another copy of the network behind another prefix. With one, all others are left out. Names that end with one of
    `unused` are dropped. Where the names do not fit, those of weights/renamings.py are tried.
    """
    bare, wrappers = unwrapped(model, [name for name in names if not name.endswith(tuple(unused) or ("\0",))])
    added, fitting = prefixes(model, bare, constants)
    renamed, note = ({}, "") if fitting else renamings.renamed(model.state_dict(), bare)
    if renamed:
        bare = {name: bare[file_name] for name, file_name in renamed.items()}
        added, fitting = prefixes(model, bare, constants)
    # A network that an attacker or a loss holds is none of the file's, unless the file has no other.
    copies = [one for one in fitting if not TRAINING.search(one)] or fitting
    every, fitting = fitting, copies
    if prefix is not None:
        own = set(model.state_dict())
        bare_prefix = ".".join(part for part in prefix.split(".") if part not in WRAPPERS or _has_part(own, part))
        # A wrapper's part that tells two networks apart was not taken out of the names.
        fitting, copies = [one for one in (prefix, bare_prefix) if one in every][:1], []
    said = [f"{wrapper}. taken out of the names" for wrapper in wrappers]
    said += [note] if renamed else []
    found = []
    for chosen in fitting:
        used = {
            name: bare[file_name]
            for name in model.state_dict()
            if (file_name := f"{chosen}{name.removeprefix(added)}") in bare and name.startswith(added)
        }
        others, rest = ([one for one in of if one != chosen] for of in (copies, every))
        pairs = [pair for pair in _normalisations(bare) if _is_of(pair, chosen, rest)]
        match = _match(bare, used, (chosen, others, pairs), prefix is not None)
        if match is not None:
            # The network's own names begin so as well.
            taken_off = [f"prefix {chosen} removed"] if chosen not in ("", added) else []
            found.append(Match(match.names, chosen, (*said, *taken_off, *match.notes), match.normalisation))
    return found


def _match(
    bare: dict[str, str],
    used: dict[str, str],
    found: tuple[str, list[str], list[tuple[str, str]]],
    leaves_rest: bool,
) -> Match | None:
    """The reading that takes the names `used`, of a network `found` behind a prefix, beside others behind theirs, with
    pairs of a normalisation's names. None where names are left over that are neither those of the others, nor known to
    be no part of a network, unless it `leaves_rest`."""
    chosen, others, pairs = found
    taken = set(used.values())
    rest = [name for name in bare if bare[name] not in taken]
    pairs = [pair for pair in pairs if {*pair} <= {*rest}]
    constants = {name for pair in pairs for name in pair}
    extra = [name for name in rest if name not in constants and not name.startswith(tuple(others) or ("\0",))]
    # With a copy of a network goes what normalises its input.
    theirs = [pair for pair in _normalisations(extra) if any(_is_of(pair, other, []) for other in others)]
    dropped = [name for name in extra if leaves_rest or LEFTOVERS.search(name) or TRAINING.search(name)]
    if len({*dropped, *(name for pair in theirs for name in pair)}) < len(extra):
        return None
    notes = [f"left out: another copy of the network behind {other} (#{other} takes it)" for other in others]
    notes += [f"left out: {len(dropped)} other names (first: {dropped[0]})"] if dropped else []
    return Match(used, chosen, tuple(notes), tuple((bare[mean], bare[std]) for mean, std in pairs))


def _normalisations(names: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs of names that are the mean and the deviation of one module."""
    present = list(names)
    pairs = []
    for name in present:
        path, dot, last = name.rpartition(".")
        partner = dict(CONSTANTS).get(last)
        if partner is not None and f"{path}{dot}{partner}" in present:
            pairs.append((name, f"{path}{dot}{partner}"))
    return pairs


def _is_of(pair: tuple[str, str], prefix: str, others: Iterable[str]) -> bool:
    """Whether a pair of names normalises the input of the network behind a prefix, not of one behind another: it is
    of a module that holds the network, or of one that stands beside it, in front, and has the name of such."""
    path = f"{pair[0].rpartition('.')[0]}.".removeprefix(".")
    if prefix.startswith(path):
        return True
    parent, module = f"{path[:-1].rpartition('.')[0]}.".removeprefix("."), path[:-1].rpartition(".")[2]
    if not prefix.startswith(parent) or any(other.startswith(path) for other in others):
        return False
    beside = prefix.removeprefix(parent).partition(".")[0]
    if module.isdecimal():
        return beside.isdecimal() and int(module) < int(beside)
    return bool(_NORMALISER.match(module))


def differences(model: nn.Module, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """(names of the network that are missing, names of the file that are not the network's), with the prefix off or on
    that leaves the fewest."""
    bare, _ = unwrapped(model, names)
    own = set(model.state_dict())
    needed = required(model, bare)
    added = common_prefix(needed)
    best: tuple[list[str], list[str]] = sorted(needed - bare.keys()), sorted(bare[name] for name in bare.keys() - own)
    firsts = {"", *(f"{name.partition('.')[0]}." for name in bare), common_prefix(bare)}
    for off in sorted(firsts):
        for on in ("", added):
            tried = {f"{on}{name.removeprefix(off)}": full for name, full in bare.items()}
            missing, extra = sorted(needed - tried.keys()), sorted(tried[name] for name in tried.keys() - own)
            if len(missing) + len(extra) < len(best[0]) + len(best[1]):
                best = missing, extra
    return best


def unwrapped(model: nn.Module, names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """({name without the parts that wrappers put into it: name}, the wrappers that were met).

    A part stays where the network's own names have it, or where two names would become one.
    """
    bare = {name: name for name in names}
    own = set(model.state_dict())
    met = []
    for wrapper in WRAPPERS:
        if _has_part(own, wrapper) or not _has_part(bare, wrapper):
            continue
        shorter = {".".join(part for part in name.split(".") if part != wrapper): full for name, full in bare.items()}
        if len(shorter) == len(bare):
            bare = shorter
            met.append(wrapper)
    return bare, met


def _has_part(names: Iterable[str], part: str) -> bool:
    return any(part in name.split(".") for name in names)


def peeled(names: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...], tuple[tuple[str, str], ...]]:
    """What is left of a file's names where no network is known: ({name: the file's}, what was taken off or left out,
    the names of mean and deviation of every normalisation)."""
    bare = {name: name for name in names}
    said = []
    for wrapper in WRAPPERS:
        if not _has_part(bare, wrapper):
            continue
        shorter = {".".join(part for part in name.split(".") if part != wrapper): full for name, full in bare.items()}
        if len(shorter) == len(bare):
            bare = shorter
            said.append(f"{wrapper}. taken out of the names")
    every = _normalisations(bare)
    constants = {name for pair in every for name in pair}
    dropped = [name for name in bare if LEFTOVERS.search(name) or TRAINING.search(name)]
    said += [f"left out: {len(dropped)} other names (first: {dropped[0]})"] if dropped else []
    kept = {name: full for name, full in bare.items() if name not in constants.union(dropped)}
    prefix = common_prefix(kept)
    said += [f"prefix {prefix} removed"] if prefix else []
    pairs = [pair for pair in every if pair[0] not in dropped and _is_of(pair, prefix, [])]
    others = [pair[0] for pair in every if pair not in pairs and pair[0] not in dropped]
    said += [f"{others[0]} normalises no input of the whole network"] if others else []
    named = tuple((bare[mean], bare[std]) for mean, std in pairs)
    return {name.removeprefix(prefix): full for name, full in kept.items()}, tuple(said), named

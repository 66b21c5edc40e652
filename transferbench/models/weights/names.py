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
"""Attributes that a network is commonly kept under; as the first parts of names they are taken off, or added."""
LEFTOVERS = re.compile(r"(^|\.)(total_ops|total_params|n_averaged)$|(^|\.)model_preact_hl1\.")
"""What no forward pass uses: thop's counters, an averaged model's, and a second copy of the first layers in
adversarially trained networks of fast_at and robust-finetuning."""
NORMALISATION = re.compile(r"(^|\.)normali[sz]er?\.(new_)?(mean|std)$")
"""The robustness library's normalisation, a part of the file."""
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Match:
    """`names`: the network's name -> the file's. `notes`: what was taken off the file's names, or left out.
    `normalisation`: the names of the file's own normalisation, which has to be compared with the network's."""

    names: dict[str, str]
    notes: tuple[str, ...] = ()
    normalisation: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    """The prefixes of other copies of the network in the same dictionary."""


def required(model: nn.Module, names: Iterable[str], constants: Iterable[str] = ()) -> set[str]:
    """The names of a network that a file must have. Not those of batch counters where a file has none of them (files of
    torch before 0.4.1, as torch's own strict loading), and not the buffers that end with one of `constants`."""
    own = set(model.state_dict())
    counted = any(name.endswith(COUNTER) for name in names)
    buffers = own - dict(model.named_parameters()).keys()
    excused = {name for name in buffers if name.endswith(tuple(constants) or ("\0",))}
    return own - excused - ({name for name in own if name.endswith(COUNTER)} if not counted else set())


def prefixes(model: nn.Module, names: Iterable[str], constants: Iterable[str] = ()) -> tuple[str, list[str]]:
    """(part before all of the network's names that the file lacks, prefixes in the file behind which all names are)."""
    present = set(names)
    needed = required(model, present, constants)
    for added in ("", *(f"{one}." for one in ATTRIBUTES), "model.model."):
        if not all(name.startswith(added) for name in needed):
            continue
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
        if fitting:
            return added, fitting
    return "", []


def match(
    model: nn.Module,
    names: Iterable[str],
    prefix: str | None = None,
    unused: Iterable[str] = (),
    constants: Iterable[str] = (),
) -> Match | None:
    """How the names of a file belong to the network; None where they do not.

    Without a `prefix` only names of WRAPPERS and ATTRIBUTES are taken off, and every name of the file must be used,
    be a LEFTOVER, or belong to another copy of the network behind another prefix. With one, all others are left out.
    Names that end with one of `unused` are dropped. Where the names do not fit, those of weights/renamings.py are
    tried.
    """
    bare, wrappers = unwrapped(model, [name for name in names if not name.endswith(tuple(unused) or ("\0",))])
    added, fitting = prefixes(model, bare, constants)
    renamed = {} if fitting else renamings.of_mobilenet(model.state_dict(), bare)
    if renamed:
        bare = {name: bare[file_name] for name, file_name in renamed.items()}
        added, fitting = prefixes(model, bare, constants)
    if prefix is not None:
        own = set(model.state_dict())
        prefix = ".".join(part for part in prefix.split(".") if part not in WRAPPERS or _has_part(own, part))
        fitting = [prefix] if prefix in fitting else []
    chosen = next((one for one in fitting if prefix is not None or set(one.split(".")[:-1]) <= set(ATTRIBUTES)), None)
    if chosen is None:
        return None
    found = {
        name: bare[file_name]
        for name in model.state_dict()
        if (file_name := f"{chosen}{name.removeprefix(added)}") in bare and name.startswith(added)
    }
    notes = [f"{wrapper}. taken out of the names" for wrapper in wrappers]
    notes += [renamings.RENOFEATION] if renamed else []
    notes += [f"prefix {chosen} removed"] if chosen else []
    used = set(found.values())
    rest = [name for name in bare if bare[name] not in used]
    normalisation = tuple(bare[name] for name in rest if NORMALISATION.search(name))
    extra = [name for name in rest if not NORMALISATION.search(name)]
    copies = tuple(one for one in fitting if one != chosen) if prefix is None else ()
    notes += [f"left out: another copy of the network behind {other} (#{other} takes it)" for other in copies]
    extra = [name for name in extra if not name.startswith(copies or ("\0",))]
    dropped = [name for name in extra if prefix is not None or LEFTOVERS.search(name)]
    notes += [f"left out: {len(dropped)} other names (first: {dropped[0]})"] if dropped else []
    extra = [name for name in extra if name not in set(dropped)]
    return None if extra else Match(found, tuple(notes), normalisation, copies)


def differences(model: nn.Module, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """(names that are missing, names that are not the network's), with the prefix off or on that leaves the fewest."""
    bare, _ = unwrapped(model, names)
    own = set(model.state_dict())
    needed = required(model, bare)
    best: tuple[list[str], list[str]] = sorted(needed - bare.keys()), sorted(bare.keys() - own)
    for off in ("", *(f"{one}." for one in ATTRIBUTES)):
        for on in ("", "model."):
            tried = {f"{on}{name.removeprefix(off)}" for name in bare}
            missing, extra = sorted(needed - tried), sorted(tried - own)
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

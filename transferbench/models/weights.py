"""Reading weights that nobody vouches for: safetensors, or torch files as plain tensors, loaded strictly."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from transferbench.base import atomic_files
from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError

State = dict[str, Tensor]

# What checkpoints hold beside tensors (an epoch, an accuracy, the arguments of a training): plain data, no code.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    type(np.float64(0)).__reduce__(np.float64(0))[0],
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "b1")),
]


def sha256_of_all(paths: Sequence[Path]) -> str:
    """64 hex digits: of the one file, or of the digests of several in order."""
    digests = [sha256_of(path) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def digest_of(model: nn.Module) -> str:
    """64 hex digits over the names, types, shapes and bytes of a model's state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read(path: Path, inside: Sequence[str] = ("state_dict",)) -> State:
    """The tensors of a .safetensors or torch file; `inside` leads to them where the file holds more than them.

    A name of `inside` that is not there is passed over. InputError says what the file is if it is not weights.
    Pickled code never runs: torch files are read with `weights_only=True`, whatever they claim to be.
    """
    found = read_any(path)
    for name in inside:
        found = found.get(name, found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"weights {path}: no dictionary of tensors inside")
    return found


def read_any(path: Path) -> Any:
    """Whatever plain data a weights file holds. InputError as `read`."""
    if not path.is_file():
        raise InputError(f"weights {path}: there is no such file")
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise InputError(f"weights {path}: the file is empty")
    if head.lstrip()[:1] == b"<":
        raise InputError(f"weights {path}: this is an HTML page, not weights: a download link answered with a page")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"weights {path}: not readable as plain tensors, damaged or unsafe ({reason})") from None


def match_names(model: nn.Module, state: State, spare: Iterable[str] = (), constants: Iterable[str] = ()) -> State:
    """The state under the model's own names: whole prefixes (`module.`, `model.`) taken off or put on.

    Entries whose name ends with one of `spare` are dropped, buffers whose name ends with one of `constants` are
    the constructor's where the file lacks them. What then still differs is for `load_strictly` to complain about.
    """
    own = model.state_dict()
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(tuple(spare) or ("\0",))}
    buffers = own.keys() - dict(model.named_parameters()).keys()
    filled = {name: own[name] for name in buffers if name.endswith(tuple(constants) or ("\0",))}
    wanted = own.keys() - filled.keys()
    candidates = [kept, _without(kept, "module."), _without(kept, "model."), _without(kept, "module.", "model.")]
    candidates += [{f"model.{name}": tensor for name, tensor in given.items()} for given in candidates]
    for given in candidates:
        if wanted <= given.keys() <= own.keys():
            return {**filled, **given}
    return _without(kept, "module.")


def _without(state: State, *prefixes: str) -> State:
    """The names without the prefixes, taken off one after the other where a name begins with them."""
    for prefix in prefixes:
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def load_strictly(model: nn.Module, state: State, path: Path) -> None:
    """Copy the tensors into the model. InputError shows the first names or shapes that do not match."""
    own = model.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        raise InputError(
            f"weights {path}: {len(missing)} names are missing (first: {missing[:3]}), {len(extra)} are not the "
            f"network's (first: {extra[:3]})"
        )
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise InputError(f"weights {path}: {name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}")
        if not bool(torch.isfinite(state[name]).all()):
            raise InputError(f"weights {path}: {name} holds a NaN or an infinity")
    model.load_state_dict(state)


def write(state: State, path: Path) -> str:
    """Save a model's state as safetensors: written beside, synced, renamed. Returns the sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    atomic_files.write_bytes(path, save(plain))
    return sha256_of(path)


def fetch(
    targets: Sequence[Path], get: Callable[[int, Path], object], check: Callable[[Sequence[Path]], object]
) -> None:
    """Bring files to their places all or none: `get(k, path)` writes the k-th somewhere else, `check` looks at them.

    Raises what `get` or `check` raise; then no file and no folder is left behind. An OSError or a download
    library's own error becomes an InputError.
    """
    with atomic_files.temporary(targets[0].parent) as folder:
        fetched = [folder / target.name for target in targets]
        for number, path in enumerate(fetched):
            try:
                get(number, path)
            except InputError:
                raise
            except Exception as error:  # every downloader has errors of its own
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise InputError(
                    f"weights {targets[number]}: the download failed ({reason}); nothing was kept"
                ) from None
        check(fetched)
        for path, target in zip(fetched, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)

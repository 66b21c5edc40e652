"""Untrusted weights: safetensors, or torch files read as plain tensors, loaded strictly; atomic downloads."""

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

StateDict = dict[str, Tensor]

# Types that checkpoints hold next to tensors (an epoch, an accuracy, the arguments of a training): plain data, no code.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    type(np.float64(0)).__reduce__(np.float64(0))[0],
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "b1")),
]


def sha256_of_all(paths: Sequence[Path]) -> str:
    """64 hex digits: the sha256 of one file, or of the sha256s of several files in order."""
    digests = [sha256_of(path) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def digest_of(model: nn.Module) -> str:
    """64 hex digits: the sha256 over the names, types, shapes and bytes of a model's state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read(path: Path, keys: Sequence[str] = ("state_dict",)) -> StateDict:
    """The tensors of a .safetensors or torch file. `keys` lead to them in a file that holds more; absent keys are
    skipped.

    InputError when the file does not hold tensors, with what it holds instead. Torch files are read with
    `weights_only=True`, so that no pickled code runs.
    """
    content = read_any(path)
    for name in keys:
        content = content.get(name, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"weights {path}: no dictionary of tensors inside")
    return content


def read_any(path: Path) -> Any:
    """The plain data that a weights file holds. InputError as `read`."""
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


def match_names(
    model: nn.Module, state: StateDict, unused: Iterable[str] = (), constants: Iterable[str] = ()
) -> StateDict:
    """The state dict under the model's own names: the prefixes `module.` and `model.` are removed or added.

    Entries whose name ends with one of `unused` are dropped. Buffers whose name ends with one of `constants` keep the
    constructor's value where the state lacks them. `load_strictly` reports the names that then still differ.
    """
    own = model.state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.endswith(tuple(unused) or ("\0",))}
    buffers = own.keys() - dict(model.named_parameters()).keys()
    defaults = {name: own[name] for name in buffers if name.endswith(tuple(constants) or ("\0",))}
    required = own.keys() - defaults.keys()
    candidates = [state, _without(state, "module."), _without(state, "model."), _without(state, "module.", "model.")]
    candidates += [{f"model.{name}": tensor for name, tensor in candidate.items()} for candidate in candidates]
    for candidate in candidates:
        if required <= candidate.keys() <= own.keys():
            return {**defaults, **candidate}
    return _without(state, "module.")


def _without(state: StateDict, *prefixes: str) -> StateDict:
    """The state dict with the prefixes removed, one after the other, from the names that begin with them."""
    for prefix in prefixes:
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def load_strictly(model: nn.Module, state: StateDict, path: Path) -> None:
    """Copy the tensors into the model. InputError with the first names or shapes that do not match, or for a NaN."""
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


def write(state: StateDict, path: Path) -> str:
    """Write a state dict as safetensors, atomically. Returns the file's sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    atomic_files.write_bytes(path, save(plain))
    return sha256_of(path)


def fetch(
    targets: Sequence[Path], get: Callable[[int, Path], object], check: Callable[[Sequence[Path]], object]
) -> None:
    """Download all files or none: `get(k, path)` writes the k-th to a temporary path, `check(paths)` validates them.

    Then the files are moved to `targets`. After an error no file and no folder remains. Errors of `get` become
    InputErrors, errors of `check` are raised as they are.
    """
    with atomic_files.temporary(targets[0].parent) as folder:
        paths = [folder / target.name for target in targets]
        for number, path in enumerate(paths):
            try:
                get(number, path)
            except InputError:
                raise
            except Exception as error:  # every downloader has errors of its own
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise InputError(
                    f"weights {targets[number]}: the download failed ({reason}); nothing was kept"
                ) from None
        check(paths)
        for path, target in zip(paths, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)

"""Reading weights that nobody vouches for: safetensors, or torch files as plain tensors, loaded strictly."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from transferbench.types import InputError


def sha256_of(path: Path) -> str:
    """64 hex digits of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or torch file. InputError says what the file is if it is not that.

    Pickled code never runs: torch files are read with `weights_only=True`, whatever they claim to be.
    """
    if not path.is_file():
        raise InputError(f"weights {path}: there is no such file")
    head = path.read_bytes()[:512]
    if not head:
        raise InputError(f"weights {path}: the file is empty")
    if head.lstrip()[:1] == b"<":
        raise InputError(f"weights {path}: this is an HTML page, not weights: a download link answered with a page")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"weights {path}: not readable as plain tensors, damaged or unsafe ({reason})") from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"weights {path}: no dictionary of tensors inside")
    return state


def load_strictly(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
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
    model.load_state_dict(state)


def write(model: nn.Module, path: Path) -> str:
    """Save the model's state as safetensors: written beside, synced, renamed. Returns the sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".writing")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, beside)
    with beside.open("rb") as stream:
        os.fsync(stream.fileno())
    digest = sha256_of(beside)
    beside.replace(path)
    return digest

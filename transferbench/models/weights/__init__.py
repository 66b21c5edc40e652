"""Untrusted weights: safetensors, or torch files read as plain tensors, loaded strictly; atomic downloads."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from transferbench.base import atomic_files
from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models.weights.download import fetch
from transferbench.models.weights.entries import class_names
from transferbench.models.weights.loading import load_strictly, match_names
from transferbench.models.weights.selection import Selection, select
from transferbench.models.weights.weights_file import (
    StateDict,
    WeightsFile,
    open_file,
    read,
    reading,
    sha256_of_all,
    shown,
)

__all__ = [
    "Selection",
    "StateDict",
    "WeightsFile",
    "class_names",
    "digest_of",
    "fetch",
    "load_strictly",
    "match_names",
    "open_file",
    "read",
    "reading",
    "select",
    "sha256_of_all",
    "shown",
    "write",
]


def digest_of(model: nn.Module) -> str:
    """64 hex digits: the sha256 over the names, types, shapes and bytes of a model's state dict.

    Extra state of modules counts by its text. InputError where that text would be another one in the next process.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            text = repr(tensor)
            if re.search(r" at 0x[0-9a-f]+", text):
                raise InputError(f"the model's state {name} is {text[:60]}, which cannot be named: leave store out")
            digest.update(f"{name} {text}".encode())
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write(state: StateDict, path: Path) -> str:
    """Write a state dict as safetensors, atomically. Returns the file's sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Copies: tied weights share their memory, which safetensors refuses to write.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    atomic_files.write_bytes(path, save(plain))
    return sha256_of(path)

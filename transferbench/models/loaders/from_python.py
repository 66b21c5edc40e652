"""A model that your own code returns: `python:<module>:<function>`.

The function takes no argument and returns an nn.Module in eval mode that maps [0,1] pixels to logits. It has the
attributes `input_shape` (3, 32, 32), `classes` (their names, or their number) and, for resumable runs, `fingerprint`:
a text that changes whenever the model does.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import uuid
from pathlib import Path
from typing import Any

from torch import nn

from transferbench.base.errors import InputError
from transferbench.models import weights
from transferbench.models.cards import ModelCard
from transferbench.models.features import find_layers
from transferbench.models.victim import Victim

IDS = {"python": "python:<module>:<function>, a model that your own code returns"}

UNREPEATABLE = "python-"
"""Prefix of the hash of a model without a fingerprint, a random number: no stored result is reused."""


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The function's model. InputError when the function or an attribute is missing, or it returns something else."""
    module_name, colon, function_name = id.partition(":")[2].partition(":")
    if not colon or not module_name or not function_name:
        raise InputError(f"model {id}: write it as python:<module>:<function>")
    function: Any = getattr(_module(id, module_name), function_name, None)
    if not callable(function):
        raise InputError(f"model {id}: module {module_name} has no function {function_name!r}")
    shape, classes = getattr(function, "input_shape", None), getattr(function, "classes", None)
    if shape is None or classes is None:
        raise InputError(
            f"model {id}: say {function_name}.input_shape = (3, 32, 32) and {function_name}.classes = 10 (or names)"
        )
    model = function()
    if not isinstance(model, nn.Module):
        raise InputError(f"model {id}: {function_name}() returned {type(model).__name__}, not an nn.Module")
    card = ModelCard(
        id=id,
        network=id,
        dataset="unknown",
        classes=tuple(map(str, range(classes) if isinstance(classes, int) else classes)),
        input_shape=tuple(shape),
        method="unknown",
        text=f"# {id}\n\nMade by a function of the user's own.",
    )
    digest = _digest(model, getattr(function, "fingerprint", None))
    # Not put into eval mode: pre-flight refuses a model in train mode.
    return Victim(card, model.requires_grad_(False), find_layers(model), digest)


def _module(id: str, name: str) -> Any:
    # A console script, unlike `python -m`, does not have the working directory on its path.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"model {id}: cannot import {name} ({error})") from None


def _digest(model: nn.Module, fingerprint: object) -> str:
    """64 hex digits over fingerprint and weights, or without a fingerprint `python-` and a random number."""
    if fingerprint is None:
        return f"{UNREPEATABLE}{uuid.uuid4().hex}"
    return hashlib.sha256(f"{fingerprint} {weights.digest_of(model)}".encode()).hexdigest()

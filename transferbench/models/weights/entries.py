"""Finds the state dicts in what a checkpoint holds, and says which one is taken where there are several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transferbench.base.errors import InputError
from transferbench.models.weights.pickles import Foreign, Name, StoredTensor, UnreadableTensor

DEFAULTS = ("state_dict", "model_state_dict", "model", "model_state", "net", "network", "module", "weights", "params")
"""Of several state dicts the first of these is taken: the weights that were trained, never an average of them.

timm and Lightning write `state_dict`, DeiT, ConvNeXt and the robustness library `model`, pytorch-cifar `net`.
"""

_TRAINING = re.compile(r"optim|opt_state|sched|scaler|^amp$|rng|loops", re.IGNORECASE)
"""Names of a training's own state, which also holds dictionaries of tensors."""
_DEPTH, _ELEMENTS = 4, 64
"""How deep dictionaries are looked into, and how long a list may be to be looked into."""

Described = Mapping[str, Any]


def find(content: Any) -> dict[str, Described]:
    """{place: state dict} of all non-empty dictionaries whose values are all tensors. The place of the whole is `""`.

    Places are joined by `/`. A dictionary that is there twice is found once.
    """
    found: dict[str, Described] = {}
    visited: set[int] = set()

    def visit(value: Any, place: tuple[str, ...]) -> None:
        if isinstance(value, list | tuple) and len(value) <= _ELEMENTS:
            value = {str(number): element for number, element in enumerate(value)}
        if not isinstance(value, dict) or id(value) in visited or len(place) > _DEPTH:
            return
        visited.add(id(value))
        kept.append(value)
        if value and all(isinstance(key, str) and _is_tensor(element) for key, element in value.items()):
            found["/".join(place)] = value
            return
        for key, element in value.items():
            if isinstance(key, str) and not _TRAINING.search(key):
                visit(element, (*place, key))

    # Keeps the dictionaries made of lists, so that no id is given twice.
    kept: list[Any] = []
    visit(content, ())
    return found


def choose(places: Sequence[str], entry: str | None) -> str:
    """The place asked for, or of several the first that ends with a name of DEFAULTS. InputError where none does."""
    if entry is not None:
        if entry not in places:
            raise InputError(f"no state dict {entry!r} that fits; there is {_listed(places)}")
        return entry
    if len(places) == 1:
        return places[0]
    for name in ("", *DEFAULTS):
        for place in places:
            if place.rpartition("/")[2] == name:
                return place
    raise InputError(f"several state dicts fit, name one with #<entry> or --weights-key: {_listed(places)}")


def description(content: Any) -> str:
    """What a file holds that has no state dict."""
    if isinstance(content, Foreign):
        return f"a whole pickled object of {content.name}; save its state_dict()"
    if not isinstance(content, dict):
        return f"it is {_noun(content)}"
    foreign = next((key for key, value in content.items() if isinstance(value, Foreign)), None)
    hint = "; save the state_dict() of the pickled objects" if foreign is not None else ""
    parts = [f"{str(key)[:40]!r}: {_noun(value)}" for key, value in list(content.items())[:4]]
    return f"it holds {', '.join(parts) or 'nothing'}{', ...' if len(content) > 4 else ''}{hint}"


def _is_tensor(value: Any) -> bool:
    return isinstance(value, StoredTensor | UnreadableTensor)


def _noun(value: Any) -> str:
    if isinstance(value, Foreign | Name):
        return f"an object of {value.name if isinstance(value, Foreign) else value.text}"
    if isinstance(value, UnreadableTensor | StoredTensor):
        return "a tensor"
    return f"a value of type {type(value).__name__}"


def _listed(places: Iterable[str]) -> str:
    names = [place or "the whole file" for place in places]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")

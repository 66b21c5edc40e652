"""Finds the state dicts in what a checkpoint holds, and knows which one a library takes of its own files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from transferbench.models.weights.pickles import Foreign, Name, StoredTensor, UnreadableTensor

TRAINING_STATE = re.compile(r"optim(?!al|um)|opt_state|sched|scaler|^amp$|rng|loops|attacker", re.IGNORECASE)
"""Names of a training's own state, which also holds dictionaries of tensors."""
AVERAGE = re.compile(r"(^|[_.])(model)?(ema|swa|averaged?)([_.]|$)", re.IGNORECASE)
"""Names of averages of a network, whatever else is in them (`ema_optimizer`)."""
_DEPTH, _ELEMENTS = 8, 64
"""How deep dictionaries are looked into, and how long a list may be to be looked into."""

_OPTIMISER = {"state", "param_groups"}
"""Names at the top of the state of any optimiser of torch."""

Described = Mapping[str, Any]
Entries = Mapping[str, Described]


class Library(NamedTuple):
    """A library that writes several networks into its files: `takes` is the entry that it loads itself."""

    takes: str
    why: str
    wrote: Callable[[set[str], Entries], bool]
    """Whether a file with these names at its top and these entries is one of its own."""


LIBRARIES = (
    Library("state_dict_ema", "as timm's load_checkpoint does", lambda _, entries: "state_dict_ema" in entries),
    Library(
        "model_ema",
        "as torchvision's references do with --model-ema",
        lambda keys, entries: "model" in keys and "n_averaged" in entries.get("model_ema", ()),
    ),
    Library(
        "model",
        "as --eval of DeiT and ConvNeXt does",
        lambda keys, _: {"model", "model_ema", "optimizer", "epoch", "args"} <= keys,
    ),
    Library(
        "model_state_dict",
        "the average, as adversarial_robustness_pytorch does",
        lambda keys, _: "unaveraged_model_state_dict" in keys,
    ),
    Library(
        "state_dict",
        "the average, as mmengine does",
        lambda keys, _: {"meta", "ema_state_dict"} <= keys,
    ),
    Library(
        "state_dict",
        "the average, as Lightning does",
        lambda keys, _: {"pytorch-lightning_version", "current_model_state"} <= keys,
    ),
)
"""The first that wrote a file says which of its networks is the default."""


def default(content: Any, entries: Entries) -> Library | None:
    """The library that wrote the file and says which of its entries is taken."""
    keys = {key for key in content if isinstance(key, str)} if isinstance(content, dict) else set()
    return next((one for one in LIBRARIES if one.takes in entries and one.wrote(keys, entries)), None)


def find(content: Any) -> dict[str, Described]:
    """{place: state dict} of all dictionaries of named tensors. The place of the whole is `""`.

    Places are joined by `/`. A dictionary that is there twice is found once. Numbers and texts among the names of a
    network are left out.
    """
    found: dict[str, Described] = {}
    visited: set[int] = set()

    def visit(value: Any, place: tuple[str, ...]) -> None:
        if isinstance(value, list | tuple) and len(value) <= _ELEMENTS:
            value = {str(number): element for number, element in enumerate(value)}
        if not isinstance(value, dict) or id(value) in visited or len(place) > _DEPTH or value.keys() >= _OPTIMISER:
            return
        visited.add(id(value))
        kept.append(value)
        if _is_state_dict(value):
            found["/".join(place)] = {name: tensor for name, tensor in value.items() if _is_tensor(tensor)}
            return
        for key, element in value.items():
            # Of epochs, or of other things that are counted.
            if isinstance(key, int) or (isinstance(key, str) and not is_of_training(key)):
                visit(element, (*place, str(key)))

    # Keeps the dictionaries made of lists, so that no id is given twice.
    kept: list[Any] = []
    visit(content, ())
    return found


def is_of_training(key: str) -> bool:
    """Whether the name is one of a training's own state, and of no average of the network."""
    return TRAINING_STATE.search(key) is not None and AVERAGE.search(key) is None


def class_names(content: Any, count: int) -> tuple[tuple[str, ...], str]:
    """(the names of so many classes in the order of their numbers, one line about it): those that the file gives
    beside its weights, `class_to_idx` or a list, else 0, 1, ..., and an empty line."""
    numbers = tuple(map(str, range(count)))
    if not isinstance(content, dict):
        return numbers, ""
    for key in ("class_to_idx", "classes", "class_names"):
        given = content.get(key)
        if isinstance(given, dict):
            places = list(given.values())
            # Numbers alone: True is no number of a class.
            if len(given) != count or any(type(place) is not int for place in places) or {*places} != {*range(count)}:
                continue
            given = sorted(given, key=given.__getitem__)
        if not isinstance(given, list | tuple) or len(given) != count or not all(isinstance(one, str) for one in given):
            continue
        if len(set(given)) == count and all(given):
            return tuple(given), f"classes named as the file's {key} says"
    return numbers, ""


def description(content: Any) -> str:
    """What a file holds that has no state dict."""
    if isinstance(content, Foreign):
        return f"a whole pickled object of {content.name}; save its state_dict()"
    if not isinstance(content, dict):
        return f"it is {noun(content)}"
    foreign = next((key for key, value in content.items() if isinstance(value, Foreign)), None)
    hint = "; save the state_dict() of the pickled objects" if foreign is not None else ""
    parts = [f"{str(key)[:40]!r}: {noun(value)}" for key, value in list(content.items())[:4]]
    return f"it holds {', '.join(parts) or 'nothing'}{', ...' if len(content) > 4 else ''}{hint}"


def _is_state_dict(value: dict[Any, Any]) -> bool:
    """Whether all names are texts and all values tensors; or some are numbers and texts, beside the dotted names of a
    network."""
    if not value or not all(isinstance(key, str) for key in value):
        return False
    if all(map(_is_tensor, value.values())):
        return True
    dotted = sum("." in key and _is_tensor(element) for key, element in value.items())
    return dotted >= 2 and all(
        _is_tensor(element) or element is None or isinstance(element, int | float | str | bytes | Foreign)
        for element in value.values()
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, StoredTensor | UnreadableTensor)


def noun(value: Any) -> str:
    """What a value of a file is, in a few words."""
    if isinstance(value, Foreign | Name):
        return f"an object of {value.name if isinstance(value, Foreign) else value.text}"
    if isinstance(value, UnreadableTensor | StoredTensor):
        return "a tensor"
    return f"a value of type {type(value).__name__}"


def listed(places: Iterable[str]) -> str:
    """The places in one line."""
    names = [place or "the whole file" for place in places]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")

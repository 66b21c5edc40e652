"""Models that a function of the user's own code returns: `python:<module>:<function>`, imported and checked.

The function takes no argument and returns an nn.Module in eval mode that maps [0,1] pixels to logits. It has the
attributes `input_shape` (3, 32, 32), `classes` (their names, or their number) and, for resumable runs, `fingerprint`:
a text that changes whenever the model does. `output` names the logits in what a model returns that is no tensor: a key,
a field or a position.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.models.outputs import with_output

PREFIX = "python:"

_named: set[str] = set()
_trusts_cards = False


def trust_cards() -> None:
    """From now on cards may name functions, too (--trust-code): reading such a card imports a module and calls it."""
    global _trusts_cards
    _trusts_cards = True


def trusts_cards() -> bool:
    """Whether cards may name functions in this process."""
    return _trusts_cards


def check_trusted(id: str) -> None:
    """InputError unless the user named the function in this process, or trusts cards. A card is anybody's text."""
    if id not in _named and not _trusts_cards:
        raise InputError(f"the model's card or run names {id}: code that reading it would run; --trust-code runs it")


class PythonModel(NamedTuple):
    """What the function returned and says about it."""

    model: nn.Module
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    fingerprint: object


def call(id: str) -> PythonModel:
    """The function's model, of an id that the user has named or trusts.

    InputError where it cannot be imported, lacks an attribute, raises, or returns something else.
    """
    _named.add(id)
    module_name, _, name = id.removeprefix(PREFIX).partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), name)):
        raise InputError(f"model {id}: write it as python:<module>:<function>")
    function: Any = getattr(_module(id, module_name), name, None)
    if not callable(function):
        raise InputError(f"model {id}: module {module_name} has no function {name!r}")
    shape, classes = getattr(function, "input_shape", None), getattr(function, "classes", None)
    if shape is None or classes is None:
        raise InputError(f"model {id}: say {name}.input_shape = (3, 32, 32) and {name}.classes = 10 (or names)")
    input_shape, names = _shape(id, name, shape), _names(id, name, classes)
    try:
        model = function()
    except (Exception, SystemExit) as error:
        raise InputError(f"model {id}: {name}() raised {registry.reason(error)}") from None
    if not isinstance(model, nn.Module):
        raise InputError(f"model {id}: {name}() returned {type(model).__name__}, not an nn.Module")
    output = getattr(function, "output", None)
    if output is not None:
        model = with_output(model, output)
    return PythonModel(model, input_shape, names, getattr(function, "fingerprint", None))


def _module(id: str, name: str) -> Any:
    # A console script, unlike `python -m`, does not have the working directory on its path.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return registry.imported(name, f"model {id}")


def _shape(id: str, name: str, given: Any) -> tuple[int, ...]:
    try:
        shape = tuple(operator.index(part) for part in given)
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(f"model {id}: {name}.input_shape is {given!r}: write whole numbers above 0, (3, 32, 32)")
    return shape


def _names(id: str, name: str, given: Any) -> tuple[str, ...]:
    """The classes' names; of a number n the names 0, 1, ..., n - 1."""
    try:
        names = tuple(map(str, range(operator.index(given))))
    except TypeError:
        names = tuple(map(str, given)) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else ()
    if len(names) < 2 or len(set(names)) != len(names):
        raise InputError(f"model {id}: {name}.classes is {given!r}: write how many, at least 2, or their names")
    return names

"""The parameters of attacks: names, types and defaults, and the text that sets them.

`apgd-ce:restarts=5,pgd:k=100:loss=cw:kappa=50` is two attacks; the same text is an attack of the command line, of a
suite file and of `evaluate()`. A parameter's type is that of its default, which an attack's file has in its literal
`PARAMETERS`. Standard library only: `list` and `--help` read it without torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, Scalar

Defaults = Mapping[str, Scalar]

_MOST = 1_000_000
"""The largest number of iterations, tries or the like that a specification may ask for."""
_TRUTH = {"true": True, "yes": True, "false": False, "no": False}


def defaults(id: str) -> dict[str, Scalar]:
    """The parameters of a registered attack with their defaults. InputError for an unknown attack."""
    return registry.parameters(registry.find("attacks", id))


def complete(spec: AttackSpec, known: Defaults | None = None) -> dict[str, Scalar]:
    """The defaults (of the registered attack, or `known`), overridden by the specification.

    InputError for an unknown name, another type, or a number that is too large.
    """
    known = defaults(spec.id) if known is None else known
    params = dict(spec.params)
    for name, value in params.items():
        if name not in known:
            raise InputError(registry.unknown(f"parameter of attack {spec.id}:", name, known))
        default = known[name]
        if isinstance(value, int) and abs(value) > _MOST:
            raise InputError(f"attack {spec.id}: {name}={value} is more than {_MOST}")
        wrong = isinstance(value, bool) != isinstance(default, bool) or (
            not isinstance(value, type(default)) and not (isinstance(default, float) and isinstance(value, int))
        )
        if wrong or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError(
                f"attack {spec.id}: {name}={value!r} is not of type {type(default).__name__} (default {default!r})"
            )
    return {**known, **params}


def parse(text: str, known: Mapping[str, Defaults] | None = None, where: str = "") -> AttackSpec:
    """`pgd:k=100:loss=cw` -> the attack with these parameters. InputError for an unknown attack or parameter, and for a
    value that is not of its type.

    `known` are the attacks of another engine with their parameters, `where` its name in messages; by default those that
    are registered.
    """
    id, *settings = [part.strip() for part in text.split(":")]
    if known is not None and id not in known:
        raise InputError(where + registry.unknown("attack", id, known))
    names = defaults(id) if known is None else known[id]
    params: dict[str, Scalar] = {}
    for setting in settings:
        name, equals, value = (part.strip() for part in setting.partition("="))
        if not (name and equals and value):
            raise InputError(f"attack {text!r}: write parameters as {id}:name=value:name=value")
        if name in params:
            raise InputError(f"attack {text!r}: {name} is given twice")
        if name not in names:
            raise InputError(registry.unknown(f"parameter of attack {id}:", name, names))
        if name == "step" and value.replace(" ", "").endswith("/255"):
            raise InputError(f"attack {id}: step={value!r} is a share of eps, not of 255: 0.25 is 2/255 at eps 8/255")
        params[name] = _value(f"attack {id}: {name}", value, names[name])
    spec = AttackSpec.of(id, **params)
    complete(spec, names)
    return spec


def _value(what: str, text: str, default: Scalar) -> Scalar:
    """The text as a value of the default's type. InputError where it is none."""
    try:
        if isinstance(default, bool):
            return _TRUTH[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, KeyError, ArithmeticError):
        kind = (
            "yes or no" if isinstance(default, bool) else "a whole number" if isinstance(default, int) else "a number"
        )
        raise InputError(f"{what}={text!r} is not {kind} (default {default!r})") from None
    return text


def normalised(spec: AttackSpec) -> AttackSpec:
    """The specification with whole numbers as floats where the default is one: equal parameters, equal keys.

    InputError as of `complete`.
    """
    known, params = defaults(spec.id), dict(spec.params)
    complete(spec, known)
    return AttackSpec.of(
        spec.id,
        **{name: float(value) if isinstance(known[name], float) else value for name, value in params.items()},
    )


def text_of(spec: AttackSpec) -> str:
    """The text that `parse` reads: `pgd:k=100:loss=cw`."""
    return ":".join([spec.id, *(f"{name}={value}" for name, value in spec.params)])

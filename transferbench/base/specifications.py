"""What is measured, as plain values: radii, threats, attacks, chains. Standard library only; hashable and JSON-able."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from numbers import Number
from typing import Any, Literal, get_args

from transferbench.base import registry
from transferbench.base.errors import InputError

Norm = Literal["Linf", "L2", "L1"]


NORMS: tuple[Norm, ...] = get_args(Norm)


ThreatName = str
"""The id of a threat: a norm, whose ball is kept inside [0,1], or another file's of threats/ (`renofeation`)."""


Scalar = str | int | float | bool


@dataclass(frozen=True)
class Epsilon:
    """A radius in [0,1] pixel units: its text as the user wrote it, and its exact value.

    The text is kept because records, tables and random starts name the radius by it (`8/255`, never
    0.03137254901960784); the value is a Fraction, so that no float is made before the last moment.
    """

    text: str
    value: Fraction

    @classmethod
    def parse(cls, given: str | int | float | Fraction) -> Epsilon:
        """Read `8/255`, `0.5`, `12`, `1e-3` or a number (Python's or numpy's). InputError unless it is finite and
        above 0."""
        if isinstance(given, bool | complex):
            raise InputError(f"eps {given!r} is not a number: write it as 8/255, 0.5 or 12")
        # A numpy scalar is a Number too, and its repr is not its value's text.
        number = isinstance(given, Number) and not isinstance(given, Fraction | int)
        text = repr(float(given)) if number else str(given).strip()
        try:
            # Decimal for `0.5` and `1e-3`, so that 0.1 is one tenth and not its nearest float.
            parts = [Fraction(Decimal(part)) for part in text.split("/")]
            value = parts[0] if len(parts) == 1 else parts[0] / parts[1]
            if len(parts) > 2:
                raise ValueError
        except (ValueError, ArithmeticError):
            raise InputError(f"eps {text!r} is not a number: write it as 8/255, 0.5 or 12") from None
        if value <= 0:
            raise InputError(f"eps {text!r} is not above 0")
        return cls(text, value)

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        return self.text


def parse_norm(text: str) -> Norm:
    """`Linf`, `L2` or `L1` exactly as spelled. InputError otherwise."""
    if text not in NORMS:
        raise InputError(f"unknown norm {text!r}: use one of {', '.join(NORMS)}")
    return text


@dataclass(frozen=True)
class ThreatModel:
    """The specification of a threat: its name and its radius. `threats.build` makes the object that computes with it.

    The radius of a norm is in [0,1] pixels; that of `renofeation` is in units of ImageNet's standard deviations.
    """

    norm: ThreatName
    eps: Epsilon

    def __post_init__(self) -> None:
        """InputError for an unknown threat, or a Linf radius over 1."""
        registry.find("threats", self.norm)
        if self.norm == "Linf" and self.eps.value > 1:
            raise InputError(f"Linf eps {self.eps} is over 1: pixels are in [0,1], so write 8/255 and not 8")

    @classmethod
    def parse(cls, norm: str, eps: str | int | float | Fraction) -> ThreatModel:
        """From text or a number. InputError for an unknown threat, or a radius that is not a number above 0."""
        return cls(norm, Epsilon.parse(eps))

    def __str__(self) -> str:
        return f"{self.norm}:{self.eps}"


@dataclass(frozen=True)
class AttackSpec:
    """An attack by its registered id with its parameters, sorted by name so that equal specs hash equally."""

    id: str
    params: tuple[tuple[str, Scalar], ...] = ()

    @classmethod
    def of(cls, id: str, **params: Scalar) -> AttackSpec:
        return cls(id, tuple(sorted(params.items())))

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, **dict(self.params)}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> AttackSpec:
        params = dict(given)
        return cls.of(params.pop("id"), **params)


@dataclass(frozen=True)
class Chain:
    """A cascade of attacks under one threat: an example is robust when it survives all of them.

    `name` is what records and tables call the result (`Linf`, `pgd20_linf`).
    """

    name: str
    threat: ThreatModel
    attacks: tuple[AttackSpec, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "norm": self.threat.norm,
            "eps": self.threat.eps.text,
            "attacks": [attack.as_dict() for attack in self.attacks],
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Chain:
        return cls(
            given["name"],
            ThreatModel.parse(given["norm"], given["eps"]),
            tuple(AttackSpec.from_dict(attack) for attack in given["attacks"]),
        )


def content_hash(*parts: object) -> str:
    """32 hex digits of the sha256 of the parts as canonical JSON: equal specifications, equal hash."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


SHARD = 256
"""A shard is this many consecutive examples of a data set's order, whatever n, batch and workers."""


@dataclass(frozen=True)
class Keep:
    """Which end points of the attacks are kept: of the fooled, of all examples, of the first N fooled of every
    shard, or none (then nothing can be verified)."""

    rule: Literal["fooled", "all", "sample", "none"] = "fooled"
    count: int = 0

    @classmethod
    def parse(cls, text: str) -> Keep:
        """`fooled`, `all`, `sample:N` or `none`. InputError otherwise."""
        kind, colon, count = text.partition(":")
        if kind in ("fooled", "all", "none") and not colon:
            return cls(kind)  # type: ignore[arg-type]
        if kind == "sample" and count.isdigit() and int(count) > 0:
            return cls("sample", int(count))
        raise InputError(f"--keep-examples {text!r}: write fooled, all, sample:N or none")

    def covers(self, wanted: Keep) -> bool:
        """Whether what was kept under this holds what the other wants."""
        order = ("none", "sample", "fooled", "all")
        if self.rule == wanted.rule:
            return self.count >= wanted.count
        return order.index(self.rule) > order.index(wanted.rule)

    def __str__(self) -> str:
        return f"{self.rule}:{self.count}" if self.rule == "sample" else self.rule


KEEP = Keep()


PREPROCESSING = r"((?P<bicubic>Bicubic)?Res(?P<resize>\d+)(x(?P<height>\d+))?)?(Crop(?P<crop>\d+))?"
"""RobustBench's words for what an image goes through, `Res256Crop224` (data/preprocessing.py); empty: nothing."""

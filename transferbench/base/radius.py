"""A radius as a field of a checked model: read from text once, written as that text."""

from __future__ import annotations

from typing import Annotated

from pydantic import PlainSerializer, PlainValidator

from transferbench.base.specifications import Epsilon


def _read(value: object) -> Epsilon:
    """The radius. ValueError (an InputError) where it is not text, or not a number above 0."""
    if isinstance(value, Epsilon):
        return value
    if not isinstance(value, str):
        raise ValueError("write the radius as text in quotes, '8/255' or '0.5'")
    return Epsilon.parse(value)


Radius = Annotated[Epsilon, PlainValidator(_read), PlainSerializer(str, return_type=str)]

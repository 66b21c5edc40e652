"""Ids of data sets: `cifar100`, `folder:<path>`, and subsets of their classes, `cifar100[0-49]`, `cifar10[cat,ship]`.

What stands in brackets are class names, labels and ranges of labels, with commas. A path that ends in `]` itself is
written with a `/` behind it.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from transferbench.base import registry
from transferbench.base.errors import InputError

_LONGEST = 60
"""Characters of a subset in a name, at most."""


class DatasetId(NamedTuple):
    """`base` is the whole data set's id; `items` are what the brackets hold, empty for all of its classes."""

    base: str
    items: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> DatasetId:
        """Read an id. InputError for brackets that hold nothing, an empty or a repeated item, or are not closed."""
        base, bracket, inside = text.rpartition("[")
        if not text.endswith("]"):
            # A path may hold any brackets.
            if bracket and ":" not in base:
                raise InputError(f"data set {text!r}: close the bracket, as in {base}[0-4,7]")
            return cls(text)
        if not bracket or not base:
            raise InputError(f"data set {text!r}: write a subset of classes as cifar100[0-49] or cifar10[cat,ship]")
        items = tuple(inside[:-1].split(","))
        for item in items:
            if not item or item != item.strip():
                raise InputError(f"data set {text!r}: write classes with commas and without spaces, as in [0-4,7]")
            if items.count(item) > 1:
                raise InputError(f"data set {text!r}: class {item} is named twice")
        return cls(base, items)

    def find(self) -> registry.Entry:
        """The plugin. InputError for an unknown data set."""
        return registry.find_family("data", self.base)

    @property
    def name(self) -> str:
        """The id as a part of victims' names: letters, digits and `_.@+:/-` in place of brackets and commas.

        What is left out of a class name, and a long list, leaves digits of its hash.
        """
        if not self.items:
            return self.base
        written = "+".join(self.items)
        valid = re.sub(r"[^\w.@+-]", "_", written)[:_LONGEST]
        # A plus in a class's own name would make two subsets of one name.
        mark = (
            ""
            if valid == written and written.count("+") == len(self.items) - 1
            else f"-{hashlib.sha256(written.encode()).hexdigest()[:8]}"
        )
        return f"{self.base}_{valid}{mark}"

    def __str__(self) -> str:
        return f"{self.base}[{','.join(self.items)}]" if self.items else self.base


def find(id: str) -> registry.Entry:
    """The plugin of a data set's id, with or without a subset. InputError for an unknown one, or wrong brackets."""
    return DatasetId.parse(id).find()

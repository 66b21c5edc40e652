"""Any network with adapters: `adapter:<reduction>:<network>`, what `tune=adapter` trains (models/adapters.py).

`adapter:8:timm:vit_tiny_patch16_224` has bottlenecks of an eighth of the width.
"""

from __future__ import annotations

import re

from transferbench.base.errors import InputError
from transferbench.models import adapters, networks
from transferbench.models.networks import Built

IDS = {"adapter": "adapter:<reduction>:<network>, any network with bottlenecks behind its MLPs or convolutions"}

_ID = re.compile(r"adapter:([1-9]\d*):(.+)")


def build(id: str, num_classes: int) -> Built:
    """The inner network with adapters. InputError for an id of another form, and where it has no place for one."""
    match = _ID.fullmatch(id)
    if match is None:
        raise InputError(f"network {id}: write it as adapter:8:<network>")
    inner = networks.build(match[2], num_classes)
    adapters.insert(inner.model, int(match[1]))
    return inner


def unstated(id: str) -> str:
    """What the inner network's id leaves open."""
    match = _ID.fullmatch(id)
    return "" if match is None else networks.unstated(match[2])

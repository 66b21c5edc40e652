"""Any network with hidden layers in its head: `mlp-head:<widths>[+bn][+dropout<p>]:<network>`.

`mlp-head:512:small-resnet` has one hidden layer of 512, `mlp-head:512,256+bn+dropout0.5:small-resnet` two, each with
batch norm and dropout: the heads of the low-data study in LwF's paper (Shafahi et al. 2020, arXiv:1905.08232).
"""

from __future__ import annotations

import re

from transferbench.base.errors import InputError
from transferbench.models import heads, networks
from transferbench.models.networks import Built

IDS = {"mlp-head": "mlp-head:<widths>[+bn][+dropout<p>]:<network>, any network with hidden layers in its head"}

_ID = re.compile(r"mlp-head:(\d+(?:,\d+)*)(\+bn)?(?:\+dropout(0?\.\d+))?:(.+)")


def build(id: str, num_classes: int) -> Built:
    """The inner network with its linear head replaced. InputError for an id of another form."""
    match = _ID.fullmatch(id)
    if match is None or "0" in match[1].split(","):
        raise InputError(
            f"network {id}: write it as mlp-head:512:<network> or mlp-head:512,256+bn+dropout0.5:<network>"
        )
    inner = networks.build(match[4], num_classes)
    hidden = [int(width) for width in match[1].split(",")]
    layers = heads.mlp(inner.model, inner.layers, num_classes, hidden, match[2] is not None, float(match[3] or 0))
    return Built(inner.model, layers, inner.input_shape)

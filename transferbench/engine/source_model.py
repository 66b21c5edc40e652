"""A public network as attacks that hold it alone use it: a fast copy where there is one that agrees with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transferbench.engine.search_model import SearchModel, as_is, copy_of
from transferbench.models.features import Layers, Penultimate, record_features

_CLOSE = 1e-4
"""Maximum difference of a copy's features, as a share of their range, on the sample."""


@dataclass(frozen=True)
class SourceModel:
    """`logits` and `features` map images [B, ...] to [B, C] and to the input of the head [B, width].

    `rows` is the number of rows that passed through the network and its copies to compare them.
    """

    logits: Callable[[Tensor], Tensor]
    features: Callable[[Tensor], Tensor]
    rows: int = 0

    @classmethod
    def prepare(cls, model: nn.Module, layers: Layers, sample: Tensor, copyable: bool = True) -> SourceModel:
        """For an eval-mode model; `sample` [B, ...] are images on which a copy has to agree with it.

        `copyable` is false for models whose outputs vary from call to call or with the batch.
        """
        plain = Penultimate(model, layers)
        search = copy_of(model, sample) if copyable else as_is(model)
        if not search.copied:
            return cls(model, plain, search.rows)
        if not layers.head:
            # It has no features, which is said when an attack asks for them.
            return cls(search.network, plain, search.rows)
        features = _features(search, layers)
        with torch.no_grad():
            expected, found = plain(sample), features(sample)
        spread = max(float(expected.max() - expected.min()), 1e-6)
        if expected.shape != found.shape or float((expected - found).abs().max()) > _CLOSE * spread:
            return cls(model, plain, search.rows + 2 * len(sample))
        return cls(search.network, features, search.rows + 2 * len(sample))


def _features(search: SearchModel, layers: Layers) -> Callable[[Tensor], Tensor]:
    def penultimate(x: Tensor) -> Tensor:
        with record_features(search.module, layers) as features:
            search.network(x)
        return features.penultimate[layers.head].flatten(1)

    return penultimate

"""Source-model PGD: Madry PGD on the public network; every network that was fine-tuned from it is judged on the result.

The plainest transfer attack. Source and victim may have other classes, so the loss is the source's cross-entropy at its
own clean prediction. Without its noise control its result has no meaning.

Paper: IGAM's code takes its black-box gradients from another model in the same way; "Two Sides of the Same Coin"
(arXiv:2008.11089) measures transferability by it.
Threats: Linf.
Holds: the source's logits.
Counts: the end point of each try.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from transferbench.attacks import Keys, RowState, losses, require
from transferbench.attacks.pgd import PGD, settings_of
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {"source-pgd": "source only: Madry PGD on the public network, against its own clean prediction"}
PARAMETERS = {"source-pgd": {"k": 20, "step": 0.25, "restarts": 1}}
VERSION = 1


class SourcePGD(PGD):
    """`output` is the public network's logits."""

    sees: Literal["source"] = "source"  # type: ignore[assignment]

    def start(self, x: Tensor, y: Tensor, clean_logits: Tensor, keys: Keys) -> RowState:
        return {**super().start(x, y, clean_logits, keys), "target": clean_logits.argmax(1)}

    def loss(self, output: Tensor, y: Tensor, state: RowState) -> Tensor:
        return losses.cross_entropy(output, state["target"])


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> SourcePGD:
    """Parameters: k=20, step=0.25 (of eps), restarts=1. InputError for a bad value, or a threat other than Linf."""
    return SourcePGD(spec.id, require(spec, threat, LinfBall), settings_of(spec))

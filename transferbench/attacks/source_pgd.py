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

from torch import Tensor

from transferbench.attacks import Keys, RowState, losses, parameters, require
from transferbench.attacks.source_attack import SignAscent, SourceNetwork, require_positive, step_keys
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {"source-pgd": "source only: Madry PGD on the public network, against its own clean prediction"}
PARAMETERS = {"source-pgd": {"k": 20, "step": 0.25, "restarts": 1}}
VERSION = 1


class OwnClass(SignAscent):
    """Ascends the source's cross-entropy at its own clean prediction; some do so at a transformed copy of the point."""

    start_forwards = 1

    def begin(self, x: Tensor, source: SourceNetwork, keys: Keys) -> RowState:
        return {"target": source(x, "logits")["logits"].argmax(1)}

    def loss(self, point: Tensor, source: SourceNetwork, state: RowState, copy: int) -> Tensor:
        seen = self.transformed(point, step_keys(state, copy))
        return losses.cross_entropy(source(seen, "logits")["logits"], state["target"])

    def transformed(self, point: Tensor, keys: Tensor) -> Tensor:
        """[B, ...]: the copies of the points that the network takes, drawn by the keys int64 [B]."""
        return point


class SourcePGD(OwnClass):
    id = "source-pgd"


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> SourcePGD:
    """Parameters: k=20, step=0.25 (of eps), restarts=1. InputError for a bad value, or a threat other than Linf."""
    ball, params = require(spec, threat, LinfBall), parameters(spec)
    require_positive(spec.id, params, "k", "step", "restarts")
    return SourcePGD(ball, params["k"], float(params["step"]), params["restarts"])

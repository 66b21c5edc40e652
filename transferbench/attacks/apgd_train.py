"""`apgd_train` of robust-finetuning (Croce and Hein 2022, arXiv:2105.12508): APGD inside and during a training."""

from __future__ import annotations

from transferbench.attacks.apgd_ball import BallAPGD
from transferbench.attacks.apgd_l1 import L1APGD, single_radius
from transferbench.base.specifications import ThreatModel, parse_norm

IN_TRAINING, IN_EVALUATION = 0.05, 0.2
"""The share of entries that the first L1 step moves."""


def apgd_train(norm: str, eps: str, n_iter: int, sparsity: float = IN_TRAINING) -> BallAPGD | L1APGD:
    """APGD on the cross-entropy from the clean image, one try; in L1 at one radius. InputError for a bad threat."""
    kind = parse_norm(norm)
    radius = float(ThreatModel.parse(kind, eps).eps)
    if kind == "L1":
        return L1APGD("apgd-ce", "ce", 1, single_radius(radius, n_iter), random_start=False, topk=sparsity)
    return BallAPGD("apgd-ce", "ce", 1, kind, radius, n_iter, random_start=False)

"""`apgd_train` of robust-finetuning (Croce and Hein 2022, arXiv:2105.12508): APGD in training and its monitoring."""

from __future__ import annotations

from transferbench.attacks.apgd_ball import BallAPGD
from transferbench.attacks.apgd_l1 import L1APGD, single_radius
from transferbench.base.specifications import ThreatModel, parse_norm
from transferbench.threats import L1Ball, L2Ball, LinfBall

IN_TRAINING, IN_EVALUATION = 0.05, 0.2
"""The share of entries that the first L1 step changes."""


def apgd_train(threat: ThreatModel, n_iter: int, sparsity: float = IN_TRAINING) -> BallAPGD | L1APGD:
    """APGD on the cross-entropy from the clean image, one try; in L1 at one radius. InputError unless it is a norm."""
    if parse_norm(threat.norm) == "L1":
        l1 = L1Ball(threat.eps)
        return L1APGD("apgd-ce", "ce", 1, l1, single_radius(l1.radius, n_iter), random_start=False, topk=sparsity)
    ball = LinfBall(threat.eps) if threat.norm == "Linf" else L2Ball(threat.eps)
    return BallAPGD("apgd-ce", "ce", 1, ball, n_iter, random_start=False)

"""`apgd_train` of robust-finetuning (Croce and Hein 2022, arXiv:2105.12508): APGD in training and its monitoring."""

from __future__ import annotations

from transferbench.attacks.apgd_ball import BallAPGD
from transferbench.attacks.apgd_l1 import L1APGD, single_radius
from transferbench.base.specifications import parse_norm
from transferbench.threats import L1Ball, L2Ball, LinfBall

IN_TRAINING, IN_EVALUATION = 0.05, 0.2
"""The share of entries that the first L1 step moves."""


def apgd_train(norm: str, eps: str, n_iter: int, sparsity: float = IN_TRAINING) -> BallAPGD | L1APGD:
    """APGD on the cross-entropy from the clean image, one try; in L1 at one radius. InputError for a bad threat."""
    if parse_norm(norm) == "L1":
        l1 = L1Ball.parse(eps)
        return L1APGD("apgd-ce", "ce", 1, l1, single_radius(l1.radius, n_iter), random_start=False, topk=sparsity)
    ball = LinfBall.parse(eps) if norm == "Linf" else L2Ball.parse(eps)
    return BallAPGD("apgd-ce", "ce", 1, ball, n_iter, random_start=False)

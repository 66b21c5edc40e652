"""Randomised models: seeded draws of a forward pass, for gradients (expectation over transformation) and for verdicts.

An attack with `eot=k` follows the mean of k draws' gradients, losses and softmax outputs (Athalye et al. 2018,
arXiv:1802.00420; AutoAttack's version `rand` has k = 20). The judge decides on the mean softmax of draws of its own,
which no attack sees: points are confirmed by other draws while the attack runs, and all fooling points are judged anew,
together and in order, when it has ended. AutoAttack steers by the loss of its last draw and decides on a single forward
pass, so that a point may count that fooled by luck.

A draw is seeded through the global generators of torch, numpy and Python. A model with a generator of its own is drawn
all the same, but not reproducibly. What a row draws depends on its place in the batch: verdicts belong to one batch
size and order (preflight.BATCH_DEPENDENT).
"""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from torch import Tensor

from transferbench.base import keyed_random
from transferbench.base.specifications import AttackSpec

EOT = 20
"""Draws of a gradient for a randomised model where the user names no number: those of AutoAttack's version `rand`."""
JUDGE = 20
"""Draws that a verdict about a randomised model is the mean of."""
JUDGE_SEEDS = 3
"""The judge's seeds that the spread of the robust accuracy is reported over; the first decides."""


def eot_of(spec: AttackSpec, randomised: bool) -> int:
    """The number of draws of each of the attack's gradients: as the specification says; 0 and by default EOT for a
    randomised model, 1 for others."""
    given = int(dict(spec.params).get("eot", 0))
    return given or (EOT if randomised else 1)


def seed_draw(*dimensions: object) -> None:
    """Seed the global generators by named dimensions."""
    key = keyed_random.stream("draw", *dimensions)
    torch.manual_seed(key)
    np.random.seed(key & 0xFFFFFFFF)
    random.seed(key)


def mean_log_softmax(logits: list[Tensor]) -> Tensor:
    """[B, C]: the logarithm of the mean softmax of the draws' logits, [B, C] each."""
    return torch.stack(logits).log_softmax(2).logsumexp(0) - math.log(len(logits))

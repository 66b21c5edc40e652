"""The losses that white-box attacks maximise, per row: logits [B, C], labels int64 [B] -> [B]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """[B]: the cross-entropy of each row."""
    return F.cross_entropy(logits, y, reduction="none")


def of_class(logits: Tensor, classes: Tensor) -> Tensor:
    """[B]: for each row the logit of its class in `classes` [B]."""
    return logits.gather(1, classes[:, None]).squeeze(1)


def cw_margin(logits: Tensor, y: Tensor, kappa: float) -> Tensor:
    """-relu(z_y - max_{j != y} z_j + kappa): Carlini and Wagner's margin as LwF (kappa 50) and FREE (0) use it.

    With kappa 0 the gradient is zero once the row is misclassified; with 50 it is not.
    """
    others = logits.scatter(1, y[:, None], -float("inf"))
    return -F.relu(of_class(logits, y) - others.amax(1) + kappa)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020, arXiv:2003.01690), untargeted. Needs 3 classes."""
    top = logits.sort(dim=1).values
    right = (logits.argsort(dim=1)[:, -1] == y).to(logits.dtype)
    runner_up = top[:, -2] * right + top[:, -1] * (1 - right)
    return -(of_class(logits, y) - runner_up) / (top[:, -1] - top[:, -3] + 1e-12)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Targeted DLR: -(z_y - z_t) / (z_1st - (z_3rd + z_4th) / 2 + 1e-12). Needs 4 classes.

    Below 4 classes there is no fourth logit (the reference stops with an IndexError), and the loss is the margin
    z_t - z_y. APGD uses only the direction of the gradient and the order of the losses, so this loses scale invariance
    only.
    """
    margin = of_class(logits, y) - of_class(logits, target)
    if logits.shape[1] < 4:
        return -margin
    top = logits.sort(dim=1).values
    return -margin / (top[:, -1] - 0.5 * (top[:, -3] + top[:, -4]) + 1e-12)


def ranked_target(clean_logits: Tensor, rank: Tensor) -> Tensor:
    """int64 [B]: the class whose clean logit has this rank; rank 0 is the largest, rank 1 the second largest."""
    order = clean_logits.sort(dim=1).indices
    return order.gather(1, clean_logits.shape[1] - 1 - rank[:, None]).squeeze(1)


def largest_is(logits: Tensor, y: Tensor) -> Tensor:
    """bool [B]: the prediction is y."""
    return torch.eq(logits.argmax(1), y)

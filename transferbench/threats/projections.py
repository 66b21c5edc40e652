"""Row-wise arithmetic of the Lp balls: differences, L2 lengths, and the projections onto ball and box in place.

Images and changes are [B, ...], radii are in [0,1] pixels, and every row is computed by itself. Auto-PGD and MSD use
these directly: their results depend on the order of the floating-point operations.
"""

from __future__ import annotations

import torch
from torch import Tensor


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """[B] reshaped to broadcast against `like` [B, ...]."""
    return values.view(-1, *[1] * (like.dim() - 1))


def difference(x: Tensor, z: Tensor) -> Tensor:
    """float64 [B, d]: z - x, taken in float64."""
    return (z.double() - x.double()).flatten(1)


def l2_norm(delta: Tensor) -> Tensor:
    """float32 [B, 1, ...]: the rows' L2 norms, shaped to broadcast."""
    return per_row(delta.square().flatten(1).sum(-1).sqrt(), delta)


def unit_l2(delta: Tensor) -> Tensor:
    """The rows divided by their L2 norm (a zero row stays zero: 1e-12 is added as the reference does)."""
    return unit_l2_(delta.clone())


def unit_l2_(delta: Tensor) -> Tensor:
    """`unit_l2` in place."""
    return delta.div_(l2_norm(delta).add_(1e-12))


def l1_correction(x: Tensor, delta: Tensor, eps: float | Tensor) -> Tensor:
    """float32 [B, ...]: what to add to delta so that ||delta||_1 <= eps and x + delta is in [0,1]; eps may be [B].

    The Euclidean projection onto the intersection of the L1 ball and the box (Croce and Hein 2021,
    arXiv:2103.01208, Proposition 2.1). Every coordinate moves towards zero by clamp(t, low, high): at
    least by `low`, its excess over the box, at most by `high`, its whole size; t >= 0 is the smallest one
    common to a row that brings the sum down to eps. The row's total movement is piecewise linear and
    nondecreasing in t: Newton steps inside a shrinking bracket find the piece, no sort is needed.

    The caller adds the correction (x + delta + correction, in that order): L1-APGD reads a sparsity off the
    residues that this order of operations leaves.
    """
    point = (x + delta).flatten(1)
    size = delta.abs().flatten(1)
    # An excess can top the size by a rounding: the move never passes zero.
    excess = torch.minimum(point.sub_(point.clamp(0, 1)).abs_(), size)
    # Buffers are used again and again: fresh ones cost more in page faults than the arithmetic does.
    slack = torch.sub(size, excess, out=point)
    t = torch.zeros_like(size[:, 0])
    lower, upper = torch.zeros_like(t), size.amax(1)
    # What t = 0 leaves, and by how much it is too much.
    left, missing = size, slack.sum(1) - eps
    active = missing > 0
    work, scratch = torch.empty_like(size), torch.empty_like(size)
    # Rows that are done never move again, so the number of rounds (set by the slowest row) changes nothing.
    for _ in range(64):
        active = active & (missing.abs() > 2.0**-22 * eps)
        if not bool(active.any()):
            break
        # How many entries move with t: those not yet at zero, less those that only the box moves. Comparisons into
        # floats are vectorised on a CPU, those into bools are not.
        slope = torch.gt(left, 0, out=scratch).sum(1) - torch.gt(left, slack, out=scratch).sum(1)
        lower = torch.where(missing > 0, t, lower)
        upper = torch.where(missing <= 0, t, upper)
        newton = t + missing / slope
        following = torch.where((newton > lower) & (newton < upper), newton, (lower + upper) / 2)
        # Where the bracket is one rounding wide there is nothing left to gain.
        active = active & (following != lower) & (following != upper)
        t = torch.where(active, following, t)
        left = torch.sub(size, t[:, None], out=work).clamp_(min=0)
        # What is left is summed, not what was taken away: its rounding is relative to eps, not to ||delta||.
        missing = torch.minimum(left, slack, out=scratch).sum(1) - eps
    moved = torch.minimum(torch.maximum(t[:, None], excess, out=work), size, out=work).view_as(delta)
    return moved.mul_(torch.sign(delta, out=scratch.view_as(delta))).neg_()


def into_l2_ball_(delta: Tensor, x: Tensor, eps: float) -> Tensor:
    """x + delta moved into the L2 ball around x, then into [0,1]. Writes over delta, and returns it."""
    length = l2_norm(delta)
    return delta.div_(length + 1e-12).mul_(length.clamp(max=eps)).add_(x).clamp_(0, 1)

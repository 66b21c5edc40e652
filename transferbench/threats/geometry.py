"""Distance, projection and random start in Linf, L2 and L1, on [0,1] images, row by row.

Shapes: images are [B, ...] float32, radii are floats in pixel units. Nothing here knows a model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import SEED_BALL, Ball, Norm


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """[B] reshaped to broadcast against [B, ...]."""
    return values.view(-1, *[1] * (like.dim() - 1))


def replace_rows_(rows: Tensor, *pairs: tuple[Tensor, Tensor]) -> None:
    """Of each pair (kept, new), write the rows of `new` over those of `kept` where `rows` bool [B] says so.

    Only these are touched: in most iterations of APGD few rows improve, and a network's pass has emptied the caches.
    """
    places = rows.nonzero().flatten()
    if len(places) > 0:
        for kept, new in pairs:
            kept.index_copy_(0, places, new.index_select(0, places))


def distance(norm: Ball, x: Tensor, z: Tensor) -> Tensor:
    """float64 [B]: ||z - x|| in the norm, the difference taken in float64 (it is what the judge trusts).

    In Linf where the ball is Renofeation's own box.
    """
    delta = (z.double() - x.double()).flatten(1)
    if norm in ("Linf", SEED_BALL):
        return delta.abs().amax(1)
    if norm == "L2":
        return delta.square().sum(1).sqrt()
    return delta.abs().sum(1)


def tolerance(norm: Norm, dimension: int) -> float:
    """The excess over the radius that float32 rounding of the stored image explains.

    2^-23 for Linf; 1e-6 + 2^-24 sqrt(d) for L2; 1e-6 + 2^-24 d for L1. A point further out is a fault.
    """
    if norm == "Linf":
        return 2.0**-23
    return 1e-6 + 2.0**-24 * (dimension**0.5 if norm == "L2" else dimension)


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
    room = torch.sub(size, excess, out=point)
    t = torch.zeros_like(size[:, 0])
    lower, upper = torch.zeros_like(t), size.amax(1)
    # What t = 0 leaves, and by how much it is too much.
    left, missing = size, room.sum(1) - eps
    active = missing > 0
    work, scratch = torch.empty_like(size), torch.empty_like(size)
    # Rows that are done never move again, so the number of rounds (set by the slowest row) changes nothing.
    for _ in range(64):
        active = active & (missing.abs() > 2.0**-22 * eps)
        if not bool(active.any()):
            break
        # How many entries move with t: those not yet at zero, less those that only the box moves. Comparisons into
        # floats are vectorised on a CPU, those into bools are not.
        slope = torch.gt(left, 0, out=scratch).sum(1) - torch.gt(left, room, out=scratch).sum(1)
        lower = torch.where(missing > 0, t, lower)
        upper = torch.where(missing <= 0, t, upper)
        newton = t + missing / slope
        following = torch.where((newton > lower) & (newton < upper), newton, (lower + upper) / 2)
        # Where the bracket is one rounding wide there is nothing left to gain.
        active = active & (following != lower) & (following != upper)
        t = torch.where(active, following, t)
        left = torch.sub(size, t[:, None], out=work).clamp_(min=0)
        # What is left is summed, not what was taken away: its rounding is relative to eps, not to ||delta||.
        missing = torch.minimum(left, room, out=scratch).sum(1) - eps
    moved = torch.minimum(torch.maximum(t[:, None], excess, out=work), size, out=work).view_as(delta)
    return moved.mul_(torch.sign(delta, out=scratch.view_as(delta))).neg_()


def project(norm: Norm, x: Tensor, z: Tensor, eps: float) -> Tensor:
    """z moved into the ball around x and into [0,1].

    Exact (the nearest point) for Linf and L1; for L2 the ball first, then the box, as attacks do it.
    """
    if norm == "Linf":
        return torch.clamp(z, *box_bounds(x, eps))
    delta = z - x
    if norm == "L2":
        return into_l2_ball_(delta, x, eps)
    return x + delta + l1_correction(x, delta, eps)


def box_bounds(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The lowest and highest image within eps of x in Linf and inside [0,1]."""
    return (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)


_MEAN, _STD, _CLIP = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 2.2
"""ImageNet's normalisation, and where Renofeation's evaluator clips."""


def seed_bounds(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The lowest and highest image that Renofeation's evaluator (`clip: seed`) allows around x [B, 3, H, W].

    eval_robustness.py of Chin et al. 2020 (arXiv:2002.02998) works on images normalised by ImageNet's mean and
    standard deviation: within eps of the image there, then clipped to [-2.2, 2.2]. So pixels below 0 are allowed, and
    near-white ones are moved down by up to .44 standard deviations whatever eps is. InputError unless there are 3
    channels.
    """
    if x.dim() != 4 or x.shape[1] != 3:
        raise InputError(f"{SEED_BALL} is for colour images, not for shape {tuple(x.shape[1:])}")
    mean, std = (torch.tensor(part, dtype=x.dtype, device=x.device).view(1, 3, 1, 1) for part in (_MEAN, _STD))
    low, high = mean - _CLIP * std, mean + _CLIP * std
    return (x - eps * std).clamp(low, high), (x + eps * std).clamp(low, high)


def seed_scale(x: Tensor) -> Tensor:
    """[1, 3, 1, 1]: what one unit of Renofeation's normalised space is in pixels."""
    return torch.tensor(_STD, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)


def into_l2_ball_(delta: Tensor, x: Tensor, eps: float) -> Tensor:
    """x + delta moved into the L2 ball around x, then into [0,1]. Writes over delta, and returns it."""
    length = l2_norm(delta)
    return delta.div_(length + 1e-12).mul_(length.clamp(max=eps)).add_(x).clamp_(0, 1)


def random_start(norm: Norm, x: Tensor, eps: float, keys: Tensor) -> Tensor:
    """[B, ...]: AutoAttack's start around x, drawn by key.

    Linf: uniform noise scaled so that its largest entry is eps; L2: Gaussian noise scaled onto the sphere;
    L1: Gaussian noise projected onto ball and box. Clamped to [0,1].
    """
    shape = tuple(x.shape[1:])
    if norm == "Linf":
        noise = 2 * keyed_random.uniform(keys, shape) - 1
        return start_from_noise(norm, x, eps, noise)
    return start_from_noise(norm, x, eps, keyed_random.normal(keys, shape))


def start_from_noise(norm: Norm, x: Tensor, eps: float, noise: Tensor) -> Tensor:
    """`random_start` for noise that is already drawn (replay draws it as the reference does)."""
    if norm == "Linf":
        largest = per_row(noise.abs().flatten(1).amax(1), noise)
        return (x + eps * (noise / (largest + 1e-12))).clamp(0, 1)
    if norm == "L2":
        return (x + eps * unit_l2(noise)).clamp(0, 1)
    return (x + noise + l1_correction(x, noise, eps)).clamp(0, 1)

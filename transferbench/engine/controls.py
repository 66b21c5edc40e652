"""Controls of crafted sets: perturbations as large as the attack's, without what it learnt about the images or the
source.

shuffled      every channel's |d| at other places, with random signs: before clipping the same Linf and L2 norm
other-image   the perturbation of another image of the shard: what is not about this image
spectrum      of a universal delta: a multiple of its spectrum, with random phases, which keeps its smoothness

Control points are clipped to the ball and the box like the attack's. The attack's points were clipped before |d| was
taken, and a control's are clipped again: where images have black or white pixels a control has a smaller L2 norm than
its attack (on digits, of source-pgd, shuffled .83 and other-image .91 of it). A delta whose entries are at +-eps has
no other phases inside the ball: its `spectrum` is scaled down, to .34 to .41 of its L2 norm at 8x8, .28 to .31 at 32x32
in colour and .20 to .23 at 224x224, so that it is a much smaller perturbation than the attack.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from transferbench import threats
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import ThreatModel
from transferbench.data import Dataset
from transferbench.threats import BoundedThreat

Change = Literal["shuffled", "other-image", "spectrum"]
OF_POINTS: tuple[Change, ...] = ("shuffled", "other-image")
OF_DELTAS: tuple[Change, ...] = ("shuffled", "spectrum")
VERSION = 1


def changed_points(change: Change, shard: Dataset, points: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """[tries, n, ...]: control points of a shard's crafted points, on the CPU. InputError for another image of a shard
    that has one."""
    if change == "other-image" and len(shard) == 1:
        raise InputError("the control other-image needs two images")
    ball = threats.build(threat)
    assert isinstance(ball, BoundedThreat)
    images = shard.pixels.cpu()
    found = []
    for attempt, crafted in enumerate(points):
        moved = crafted - images
        if change == "other-image":
            # The order of images is random: the next one is as good as any.
            moved = moved.roll(1, 0)
        else:
            moved = shuffled(moved, _keys("control", seed, attempt, shard.ids.cpu()))
        found.append(ball.project(images, images + moved))
    return torch.stack(found)


def changed_deltas(change: Change, deltas: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """[tries, C, H, W]: control deltas."""
    keys = _keys("control delta", seed, 0, torch.arange(len(deltas)))
    if change == "shuffled":
        return shuffled(deltas, keys)
    found = other_phases(deltas, keys)
    eps = float(threat.eps.value)
    # Scaled where another phase exceeds the ball: clipping would change the spectrum.
    largest = found.abs().flatten(1).amax(1).clamp(min=torch.finfo(found.dtype).tiny)
    return (found * (eps / largest).clamp(max=1).view(-1, 1, 1, 1)).clamp(-eps, eps)


def shuffled(moved: Tensor, keys: Tensor) -> Tensor:
    """[B, C, ...]: |moved| at permuted places of each channel, with random signs, by the key of each row."""
    flat = moved.abs().flatten(2)
    order = keyed_random.uniform(keys, tuple(flat.shape[1:])).argsort(2)
    signs = keyed_random.signs(keyed_random.mix(keys), tuple(flat.shape[1:]))
    return (flat.gather(2, order) * signs).view_as(moved)


def other_phases(moved: Tensor, keys: Tensor) -> Tensor:
    """[B, C, H, W] with the amplitudes of `moved` and the phases of noise."""
    noise = torch.fft.fft2(keyed_random.normal(keys, tuple(moved.shape[1:])))
    return torch.fft.ifft2(torch.fft.fft2(moved).abs() * torch.exp(1j * noise.angle())).real


def _keys(what: str, seed: int, attempt: int, ids: Tensor) -> Tensor:
    return keyed_random.row_keys(keyed_random.stream(what, seed, attempt), ids)

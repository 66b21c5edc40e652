"""BSR and SIA: MI-FGSM on the mean gradient of copies whose blocks are moved, turned or changed, at the public
network's own clean prediction.

`source-bsr` cuts the image into three strips of random lengths along a random axis, shuffles them, turns each by a
random angle within itself (what enters is zero), cuts each into three along the other axis, and shuffles these.
`source-sia` cuts it into 3x3 blocks at random places, and applies to each one of: roll or flip along an axis, turn by
180 degrees, scale by U(0, 1), add U(-eps, eps) and clip to [0,1].

Paper: Wang et al. 2024, BSR (arXiv:2308.10299); Wang et al. 2023, SIA (arXiv:2309.14700), with the settings of
TransferAttack's code: 20 copies a step, 10 steps of eps/10, decay 1, no random start.
Threats: Linf.
Holds: the source's logits.
Counts: the end point.
Deviations: the label is the source's own clean class; draws are per row and copy, not per copy of a batch. sia: the
seven transforms of TransferAttack, without the paper's resizing, DCT and dropout; its noise of 16/255 is eps. Papers
take 10 copies (BSR), the code 20.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferbench.attacks import parameters, require
from transferbench.attacks.source_attack import require_positive
from transferbench.attacks.source_momentum import with_momentum
from transferbench.attacks.source_pgd import OwnClass
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {
    "source-bsr": "source only: MI-FGSM on copies with shuffled and turned blocks (BSR), at its own clean prediction",
    "source-sia": "source only: MI-FGSM on copies with transformed blocks (SIA), at its own clean prediction",
}
PARAMETERS = {
    "source-bsr": {"copies": 20, "degrees": 24.0, "n_iter": 10, "step": 0.1, "decay": 1.0},
    "source-sia": {"copies": 20, "n_iter": 10, "step": 0.1, "decay": 1.0},
}
VERSION = 1

_PARTS = 3
"""Strips, or blocks, along an axis."""
_ROLL_DOWN, _ROLL_RIGHT, _FLIP_DOWN, _FLIP_RIGHT, _TURN, _SCALE, _NOISE = range(7)


class SourceBSR(OwnClass):
    id = "source-bsr"
    degrees: float

    def transformed(self, point: Tensor, keys: Tensor) -> Tensor:
        """Cut, shuffled and turned. `along` is the axis that is cut first (`sideways`: the columns).

        For every entry of the copy, the entry of the image that the shuffles bring there, then the place in its strip
        that the rotation brings there.
        """
        down, right = _grid(point)
        drawn = keyed_random.uniform(keys, (4 + 2 * _PARTS, _PARTS)).to(point.dtype)
        sideways = drawn[:, 0, :1, None] < 0.5
        along, across = torch.where(sideways, right, down), torch.where(sideways, down, right)
        rows, columns = point.shape[2:]
        length, width = torch.where(sideways, columns, rows), torch.where(sideways, rows, columns)
        strips = _lengths(drawn[:, 1:2], length)
        strip, along = _shuffled(along, torch.zeros_like(along), strips, drawn[:, 2:3])
        _, across = _shuffled(across, strip, _lengths(drawn[:, 4 : 4 + _PARTS], width), drawn[:, 4 + _PARTS :])
        size, angle = _of(strips[:, 0], strip), _of((2 * drawn[:, 3] - 1) * self.degrees, strip).deg2rad()
        first = _of(strips[:, 0].cumsum(1) - strips[:, 0], strip)
        middle, centre = first + (size - 1) / 2, (width - 1) / 2
        x, y = along - middle, across - centre
        turned_x, turned_y = middle + angle.cos() * x + angle.sin() * y, centre - angle.sin() * x + angle.cos() * y
        copies = torch.zeros_like(point)
        # Linear interpolation between the four entries around, those of other strips and beyond the image being zero.
        for near_x in (turned_x.floor(), turned_x.floor() + 1):
            for near_y in (turned_y.floor(), turned_y.floor() + 1):
                inside = (near_x >= first) & (near_x < first + size) & (near_y >= 0) & (near_y < width)
                weight = inside * (1 - (turned_x - near_x).abs()) * (1 - (turned_y - near_y).abs())
                at_row, at_column = torch.where(sideways, near_y, near_x), torch.where(sideways, near_x, near_y)
                copies = copies + weight[:, None] * _read(point, at_row * inside, at_column * inside)
        return copies


class SourceSIA(OwnClass):
    id = "source-sia"

    def transformed(self, point: Tensor, keys: Tensor) -> Tensor:
        """Every block by a transform of its own."""
        down, right = _grid(point)
        height, width = point.shape[2:]
        counts = [_PARTS * _PARTS, _PARTS * _PARTS, height - 1, width - 1, point[0].numel()]
        drawn = keyed_random.uniform(keys, (sum(counts),)).to(point.dtype)
        kinds, values, heights, widths, noise = drawn.split(counts, 1)
        row, top, tall = _cut(heights, down)
        column, left, wide = _cut(widths, right)
        block = _PARTS * row + column
        kind, value = _of((7 * kinds).long(), block), _of(values, block)
        down, right = down - top, right - left
        rolled_down, rolled_right = ((at - (value * size).long()) % size for at, size in ((down, tall), (right, wide)))
        down = torch.where(kind == _ROLL_DOWN, rolled_down, down)
        down = torch.where((kind == _FLIP_DOWN) | (kind == _TURN), tall - 1 - down, down)
        right = torch.where(kind == _ROLL_RIGHT, rolled_right, right)
        right = torch.where((kind == _FLIP_RIGHT) | (kind == _TURN), wide - 1 - right, right)
        copies = _read(point, top + down, left + right) * torch.where(kind == _SCALE, value, 1.0)[:, None]
        noisy = (copies + self.threat.radius * (2 * noise.view_as(point) - 1)).clamp(0, 1)
        return torch.where((kind == _NOISE)[:, None], noisy, copies)


def _grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """int64 [B, H, W] twice: the row and the column of every entry of images [B, C, H, W]."""
    shape = (len(x), *x.shape[2:])
    down, right = (torch.arange(side, device=x.device) for side in x.shape[2:])
    return down[:, None].expand(shape), right.expand(shape)


def _of(table: Tensor, index: Tensor) -> Tensor:
    """[B, H, W]: the entries of each row's table [B, N] at its `index` [B, H, W]."""
    return table.gather(1, index.flatten(1)).view(index.shape)


def _read(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[B, C, H, W]: x at these rows and columns [B, H, W]."""
    index = (rows * x.shape[3] + columns).long().flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, index).view_as(x)


def _lengths(drawn: Tensor, total: Tensor) -> Tensor:
    """int64 [B, G, 3] that add up to `total` [B, 1, 1]: shares drawn from U(1, 2), rounded; the largest takes the
    rest. `drawn` [B, G, 3] is in [0, 1)."""
    shares = 1 + drawn
    lengths = (shares / shares.sum(2, keepdim=True) * total).round().long()
    largest = lengths.argmax(2, keepdim=True)
    return lengths.scatter_add(2, largest, total - lengths.sum(2, keepdim=True))


def _shuffled(position: Tensor, group: Tensor, lengths: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """int64 [B, H, W] twice: of what a shuffle brings to each `position` of an axis, the part and the position before.

    There are G ways of cutting and shuffling: `group` [B, H, W] says which applies; parts have `lengths` [B, G, 3],
    and their order is that of `drawn` [B, G, 3].
    """
    order = drawn.argsort(dim=2, stable=True)
    sizes = lengths.gather(2, order)
    ends = sizes.cumsum(2)
    moved = (lengths.cumsum(2) - lengths).gather(2, order) - (ends - sizes)
    place = torch.stack([position >= _of(ends[:, :, part], group) for part in range(_PARTS - 1)]).sum(0)
    index = _PARTS * group + place
    return _of(order.flatten(1), index), position + _of(moved.flatten(1), index)


def _cut(drawn: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """int64 [B, H, W] three times: of each `position` of an axis its part, the part's first position and its length.

    `drawn` [B, side - 1] orders the places where the axis may be cut: the first two are taken.
    """
    inner = (drawn.argsort(dim=1, stable=True)[:, : _PARTS - 1] + 1).sort(1).values
    edges = torch.nn.functional.pad(inner, (1, 0))
    ends = torch.nn.functional.pad(inner, (0, 1), value=drawn.shape[1] + 1)
    part = (position[..., None] >= inner[:, None, None]).sum(-1)
    return part, _of(edges, part), _of(ends - edges, part)


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> OwnClass:
    """Parameters: copies=20 at every step, n_iter=10, step=0.1 (of eps), decay=1, of the running mean; bsr: degrees=24,
    the largest angle.

    InputError for a bad value, or a threat other than Linf.
    """
    ball, params = require(spec, threat, LinfBall), parameters(spec)
    require_positive(spec.id, params, "copies")
    attack: OwnClass
    if spec.id == SourceSIA.id:
        attack = with_momentum(SourceSIA, ball, params)
    else:
        if not 0 <= params["degrees"] <= 180:
            raise InputError(f"attack {spec.id}: degrees={params['degrees']} must be in [0, 180]")
        attack = bsr = with_momentum(SourceBSR, ball, params)
        bsr.degrees = float(params["degrees"])
    attack.copies = params["copies"]
    return attack

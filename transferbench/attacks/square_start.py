"""Square attack that starts where an attack on the public network ended.

Every query changes a square of the best point so far to plus or minus eps around the clean image, one sign for each
channel; it is kept where the victim's margin rises. The squares shrink over the budget. `start=stripes` is the control:
the original's own start, vertical stripes, with the same budget and without the source.

Paper: Andriushchenko et al. 2020 (arXiv:1912.00049), Linf, p_init .05, the schedule of its code for 10,000 queries
scaled to the budget. BASES (arXiv:2208.03610) starts it at a crafted point.
Threats: Linf.
Holds: a crafted point of each image; the victim's margin at `queries` points.
Counts: every point that is queried, the start first.
Deviations: The ball lies around the clean image; BASES' code puts it around the crafted point, so that its result may
be 2 eps away. The start is one of the `queries`; in the paper's and AutoAttack's code it comes before them. Squares
also reach the last row and column, which those codes never draw. A square that changes nothing is queried, as in
AutoAttack's code; the paper's code draws again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferbench.attacks import Keys, RowState, parameters, require
from transferbench.attacks.query_attack import Begin, MarginAscent, budget, chosen, per_image, query_keys
from transferbench.attacks.source_attack import SourceNetwork, require_positive
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {"square-start": "queries: Square from a point that was crafted with the public network"}
PARAMETERS = {"square-start": {"queries": 500, "p_init": 0.05, "start": "crafted"}}
VERSION = 1

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 squares: after each of these numbers the share of the image that a square covers is halved."""


class SquareStart(MarginAscent):
    """`shares` float64: the share of the image that each square of the budget covers."""

    id = "square-start"
    control = ("start", "stripes")

    def __init__(self, ball: LinfBall, queries: int, p_init: float, begins: Begin) -> None:
        super().__init__(ball, queries)
        self.begins = begins
        self.shares = torch.tensor(
            [share_at(square, queries, p_init) for square in range(queries)], dtype=torch.float64
        )

    def start(self, x: Tensor, y: Tensor, source: SourceNetwork, keys: Keys, begin: Tensor) -> RowState:
        state = super().start(x, y, source, keys, begin)
        if self.begins == "image":
            channels, _, width = x.shape[1:]
            stripes = keyed_random.signs(query_keys(state), (channels, 1, width))
            state["x"] = self.threat.displace(x, stripes.expand_as(x))
        return state

    def propose(self, state: RowState, source: SourceNetwork) -> Tensor:
        clean, query = state["clean"], state["query"]
        channels, height, width = clean.shape[1:]
        sides = self.sides((query - 1).clamp(min=0), height, width)
        drawn = keyed_random.uniform(query_keys(state), (2 + channels,))
        rows = _within(drawn[:, 0], sides, height)[:, None, :, None]
        columns = _within(drawn[:, 1], sides, width)[:, None, None, :]
        signs = torch.where(drawn[:, 2:] < 0.5, -1.0, 1.0)[:, :, None, None]
        moved = self.threat.displace(clean, signs.expand_as(clean))
        return torch.where(rows & columns & per_image(query > 0, clean), moved, state["x"])

    def sides(self, square: Tensor, height: int, width: int) -> Tensor:
        """int64 [B]: the side length in pixels of the square with each number [B], from 0."""
        shares = self.shares.to(square.device)[square]
        return (shares * height * width).sqrt().round().long().clamp(1, min(height, width))


def share_at(square: int, queries: int, p_init: float) -> float:
    """The share of the image that the square of this number (from 0) covers, in a budget of `queries`."""
    scaled = int(square / queries * 10_000)
    return p_init / 2 ** sum(scaled > after for after in _HALVINGS)


def _within(drawn: Tensor, sides: Tensor, length: int) -> Tensor:
    """bool [B, length]: where an interval of each side length lies, placed by a number in [0, 1)."""
    # In float64: in float32 the product may round up to the number of places.
    first = (drawn.double() * (length - sides + 1)).floor().long()
    places = torch.arange(length, device=drawn.device)
    return (places >= first[:, None]) & (places < (first + sides)[:, None])


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> SquareStart:
    """Parameters: queries=500, p_init=0.05, start=crafted|stripes (stripes is the control).

    InputError for a bad value, or a threat other than Linf.
    """
    ball, params = require(spec, threat, LinfBall), parameters(spec)
    require_positive(spec.id, params, "p_init")
    if params["p_init"] > 1:
        raise InputError(f"attack {spec.id}: p_init={params['p_init']} is a share of the image: at most 1")
    begins: Begin = "crafted" if chosen(spec.id, params, "start", "crafted", "stripes") == "crafted" else "image"
    return SquareStart(ball, budget(spec.id, params), float(params["p_init"]), begins)

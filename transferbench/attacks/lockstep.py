"""The naive loop: all rows of one try start together and run in lockstep to the end.

Methods use it as the inner maximisation of adversarial training, tests as the pool's oracle, and crafted sets are made
with it. It has no early exit and no queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from transferbench.attacks import Keys, RowAttack, State, losses
from transferbench.base import keyed_random
from transferbench.base.errors import FaultError


class Outcome(NamedTuple):
    """The outcome of one try.

    [B, ...] each: `last` the end points, `best` the points of highest loss, `fooling` the first candidate that was
    misclassified (the clean image where `fooled` [B] is False).
    """

    last: Tensor
    best: Tensor
    fooling: Tensor
    fooled: Tensor


def forward_backward(
    network: Callable[[Tensor], Tensor], x: Tensor, loss: Callable[[Tensor], Tensor], needs_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(output [B, C], loss [B], gradient of the summed loss w.r.t. x), all detached.

    FaultError when an output is not finite: a NaN logit would count as robust for label 0.
    """
    with torch.enable_grad():
        point = x.detach().requires_grad_(needs_grad)
        output = network(point)
        per_row = loss(output)
        if not bool(torch.isfinite(output).all()):
            rows = (~torch.isfinite(output.detach().flatten(1)).all(1)).nonzero().flatten().tolist()
            raise FaultError(f"the network's output is not finite for rows {rows[:8]} of the batch")
        gradient = torch.autograd.grad(per_row.sum(), point)[0] if needs_grad else torch.zeros_like(point)
    # A copy, because attacks write over it and a model may return a tensor that it keeps.
    return output.detach(), per_row.detach(), gradient.clone(memory_format=torch.contiguous_format)


def maximise(
    attack: RowAttack,
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    noise: Tensor,
    clean_output: Tensor | None = None,
    attempt: int = 0,
) -> Outcome:
    """Run one try of an attack on x [B, ...] in [0,1], y int64 [B], from start to end.

    `noise` int64 [B] keys the starts (see `try_keys`); `clean_output` [B, C] ranks the targets, which only
    targeted attacks need. The network is attacked in the mode it is in.
    """
    ranking = x.new_empty(len(x), 0) if clean_output is None else clean_output
    state = attack.start(x, y, ranking, Keys(noise, torch.full_like(y, attempt)))
    fooling, fooled = x.clone(), torch.zeros_like(y, dtype=torch.bool)
    for evaluation in range(attack.passes):
        point = state["x"]
        output, loss, gradient = forward_backward(
            network, point, lambda out: attack.loss(out, y, state), attack.needs_grad
        )
        counting = attack.candidate(state)
        if attack.counts == "last" and evaluation < attack.passes - 1:
            counting = torch.zeros_like(counting)
        if attack.sees == "victim":
            hit = counting & ~losses.largest_is(output, y) & ~fooled
            fooling[hit] = point[hit]
            fooled |= hit
        following = attack.step(state, output, loss, gradient)
        if evaluation < attack.passes - 1:
            state["x"] = following
    return Outcome(state["x"], attack.best(state), fooling, fooled)


def logits(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """[B, C]: the network's output for x, without a gradient."""
    with torch.no_grad():
        return network(x)


def try_keys(seed: int, norm: str, eps: str, rank: int, ids: Tensor) -> Tensor:
    """int64 [B]: the noise keys of the try of that rank on the examples `ids`."""
    return keyed_random.row_keys(keyed_random.stream("start", seed, norm, eps, rank), ids)


class eval_mode:  # noqa: N801 - reads as a statement: `with eval_mode(net):`
    """Every sub-module in eval mode, its own former mode afterwards (a frozen BN stays frozen)."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.before: list[tuple[nn.Module, bool]] = []

    def __enter__(self) -> nn.Module:
        self.before = [(module, module.training) for module in self.network.modules()]
        return self.network.eval()

    def __exit__(self, *_: object) -> None:
        for module, training in self.before:
            module.training = training


def end_point(
    attack: RowAttack,
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    noise: Tensor,
    attempt: int = 0,
    clean_output: Tensor | None = None,
    begun: tuple[int, State] | None = None,
    keep: Callable[[int, State], None] | None = None,
) -> Tensor:
    """[B, ...]: the end point of a `counts = "last"` attack. The network is not evaluated at the end point.

    For the inner maximisation of adversarial training, whose own loss evaluates that point, and for crafted sets.
    `clean_output` is as in `maximise`. `begun` is (steps done, state) to go on from; `keep` is called with the same
    after every step.
    """
    ranking = x.new_empty(len(x), 0) if clean_output is None else clean_output
    done, state = begun or (0, attack.start(x, y, ranking, Keys(noise, torch.full_like(y, attempt))))
    for step in range(done, attack.passes - 1):
        output, loss, gradient = forward_backward(
            network, state["x"], lambda out: attack.loss(out, y, state), attack.needs_grad
        )
        state["x"] = attack.step(state, output, loss, gradient)
        if keep is not None:
            keep(step + 1, state)
    return state["x"]

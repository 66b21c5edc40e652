"""The naive loop: all rows of one try start together and run in lockstep to the end.

Methods use it as the inner maximisation of adversarial training, tests as the pool's oracle. It has no early exit and
no queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from transferbench.attacks import Keys, RowAttack, RowState, losses
from transferbench.base import keyed_random
from transferbench.base.errors import FaultError


class TryResult(NamedTuple):
    """The result of one try, [B, ...] each.

    `last`: the end points; `best`: the points of highest loss; `fooling`: the first misclassified candidates, the clean
    image where `fooled` bool [B] is False.
    """

    last: Tensor
    best: Tensor
    fooling: Tensor
    fooled: Tensor


def forward_backward(
    network: Callable[[Tensor], Tensor], x: Tensor, loss: Callable[[Tensor], Tensor], needs_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(output [B, C], loss [B], gradient of the summed loss w.r.t. x), all detached.

    FaultError when an output is not finite, because a NaN logit counts as a prediction of class 0.
    """
    with torch.enable_grad():
        point = x.detach().requires_grad_(needs_grad)
        output = network(point)
        per_row = loss(output)
        if not bool(torch.isfinite(output).all()):
            rows = (~torch.isfinite(output.detach().flatten(1)).all(1)).nonzero().flatten().tolist()
            raise FaultError(f"the network's output is not finite for rows {rows[:8]} of the batch")
        gradient = torch.autograd.grad(per_row.sum(), point)[0] if needs_grad else torch.zeros_like(point)
    # A copy, because attacks overwrite it and a model may return a tensor that it still uses.
    return output.detach(), per_row.detach(), gradient.clone(memory_format=torch.contiguous_format)


def maximise(
    attack: RowAttack,
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    noise: Tensor,
    clean_output: Tensor | None = None,
    attempt: int = 0,
) -> TryResult:
    """Run one try of an attack, with all arguments as for `start`. The network's mode is not changed."""
    state = start(attack, x, y, noise, clean_output, attempt)
    fooling, fooled = x.clone(), torch.zeros_like(y, dtype=torch.bool)
    for evaluation in range(attack.passes):
        point = state["x"]
        output, loss, gradient = forward_backward(
            network, point, lambda out: attack.loss(out, y, state), attack.needs_grad
        )
        counts = attack.candidate(state)
        if attack.counts == "last" and evaluation < attack.passes - 1:
            counts = torch.zeros_like(counts)
        hit = counts & ~losses.largest_is(output, y) & ~fooled
        fooling[hit] = point[hit]
        fooled |= hit
        following = attack.step(state, output, loss, gradient)
        if evaluation < attack.passes - 1:
            state["x"] = following
    return TryResult(state["x"], attack.best(state), fooling, fooled)


def logits(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """[B, C]: the network's output for x, without a gradient."""
    with torch.no_grad():
        return network(x)


def try_keys(seed: int, norm: str, eps: str, rank: int, ids: Tensor) -> Tensor:
    """int64 [B]: the noise keys of the try of that rank for the example ids."""
    return keyed_random.row_keys(keyed_random.stream("start", seed, norm, eps, rank), ids)


class eval_mode:  # noqa: N801 - reads as a statement: `with eval_mode(net):`
    """Puts every sub-module into eval mode within the block, and restores the mode of each afterwards."""

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
    attack: RowAttack, network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, noise: Tensor, attempt: int = 0
) -> Tensor:
    """[B, ...]: the end points of one try, at which the network is not evaluated.

    For the inner maximisation of adversarial training, whose loss evaluates these points. Arguments as for `start`.
    """
    return run_to_end(attack, network, y, start(attack, x, y, noise, None, attempt))


def start(
    attack: RowAttack, x: Tensor, y: Tensor, noise: Tensor, clean_output: Tensor | None = None, attempt: int = 0
) -> RowState:
    """The state at the start of the try number `attempt` on images x [B, ...] in [0,1] with labels y int64 [B].

    `noise` int64 [B] keys the random starts (see `try_keys`). `clean_output` [B, C] are the logits on x, which rank the
    classes of a targeted attack; other attacks do not need them.
    """
    ranking = x.new_empty(len(x), 0) if clean_output is None else clean_output
    return attack.start(x, y, ranking, Keys(noise, torch.full_like(y, attempt)))


def run_to_end(
    attack: RowAttack,
    network: Callable[[Tensor], Tensor],
    y: Tensor,
    state: RowState,
    done: int = 0,
    on_step: Callable[[int, RowState], None] | None = None,
) -> Tensor:
    """[B, ...]: the end points of a try from its state after `done` steps.

    `on_step` is called after every step with the number of steps and the state.
    """
    for step in range(done, attack.passes - 1):
        output, loss, gradient = forward_backward(
            network, state["x"], lambda out: attack.loss(out, y, state), attack.needs_grad
        )
        state["x"] = attack.step(state, output, loss, gradient)
        if on_step is not None:
            on_step(step + 1, state)
    return state["x"]

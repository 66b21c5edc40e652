"""The pre-flight: refuses models and examples that would make numbers wrong, and flags suspicious models.

Refused with InputError: what engine/canonical.py refuses, a model that fails on the images, logits that are not a
finite [n, C] tensor, no gradient to the input, labels out of range. Flags are names from `FLAGS` and part of the
record; engine/row_flags.py
counts some of them over every attacked example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.base.results import AttackTally
from transferbench.base.settings import MIN_ROWS
from transferbench.engine.autograd_calls import record_autograd_calls
from transferbench.engine.canonical import Canonical, called
from transferbench.engine.memory import is_out_of_memory
from transferbench.engine.row_counter import RowCounter
from transferbench.engine.row_independence import LOW_PRECISION_SHARE, SHARE, company, differs, mixes_rows
from transferbench.models import outputs

FLAGS = {
    "softmax-output": "the outputs are non-negative and sum to 1: probabilities, whose gradients vanish",
    "zero-gradient": "the logit margin of some examples has no gradient: gradient attacks are blind there",
    "cross-entropy-underflow": "the cross-entropy of some examples has no gradient though their logit margin has one "
    "(very large logits): attacks on the cross-entropy are blind there",
    "mixes-rows": "the answer to an image depends on the other images of its batch, or on its place among them: "
    "accuracy belongs to one batch size and order",
    "randomised": "two calls on the same images differ: accuracy under attack is not well defined",
    "state-between-calls": "a call changes the model's buffers, parameters, attributes or later outputs",
    "accuracy-at-chance": "clean accuracy is not above chance (one-sided binomial test, p > .01, n >= 50)",
    "gradient-inside": "the forward pass computes gradients itself (optimisation at test time): attacks may miss them",
    "gradients-masked": "Square, which uses no gradients, fooled examples that had survived the gradient attacks",
    "untrained": "a smoke run trained it, or its source, for a few steps on synthetic data: its numbers mean nothing",
    "clamped-input": "images lay outside [0,1] by at most 1e-6 and were clamped",
}

BATCH_DEPENDENT = frozenset({"randomised", "state-between-calls", "mixes-rows"})
"""Flags of models whose verdicts belong to one batch size and order. They are attacked as they are (no copy), all
examples in one job, which is not resumed in its middle."""

_REPEATABLE = 1e-6
_SAME_GRADIENT = 0.1
"""The largest relative difference of a row's gradient that counts as rounding."""


@dataclass(frozen=True)
class Preflight:
    """The report of `check_model`.

    `model`: the network in its canonical form (engine/canonical.py); `num_classes` C; sorted `flags`; `rows`: the
    number of rows that passed through it; `share`: the share of the logit range up to which a difference is rounding.
    """

    model: nn.Module
    num_classes: int
    flags: tuple[str, ...]
    rows: int
    share: float

    @property
    def batch_dependent(self) -> bool:
        """Whether verdicts belong to one batch size and order."""
        return bool(BATCH_DEPENDENT & {*self.flags})


def check_labels(y: Tensor, num_classes: int) -> None:
    """InputError when a label is outside 0..C-1, which would count as never classified correctly."""
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= num_classes:
        raise InputError(f"labels lie in {low}..{high}, but the model has classes 0..{num_classes - 1}")


def check_model(given: object, x: Tensor, y: Tensor | None, most: int = 64, rows: int = MIN_ROWS) -> Preflight:
    """Test a model (a module or a function) on the first `rows` images (with darker copies where there are fewer).

    `y` is None for a model whose classes are not the images' (a source with other labels). `most`: the number of rows
    in flight, at which rows are compared as well, unless `rows` are fewer than the engine ever shows (a smoke run's
    two). InputError when the model is refused.
    """
    most = most if rows >= MIN_ROWS else 0
    x = company(x[:rows], max(rows, 2))
    canonical = Canonical(given, x)
    model, share = canonical.network, LOW_PRECISION_SHARE if canonical.low_precision else SHARE
    flags: set[str] = set()
    before, counter = _snapshot(model), RowCounter(model)
    with torch.no_grad():
        with record_autograd_calls() as calls:
            first = _logits(counter, x)
        if calls:
            flags.add("gradient-inside")
        again = _logits(counter, x)
        counter(x.flip(0) * 0.5)
        later = _logits(counter, x)
        if y is not None:
            check_labels(y, first.shape[1])
        if differs(first, again, _REPEATABLE):
            flags.add("randomised")
        elif differs(first, later, _REPEATABLE):
            flags.add("state-between-calls")
        elif mixes_rows(partial(_logits, counter), x, most, share):
            flags.add("mixes-rows")
    if _snapshot(model) != before:
        flags.add("state-between-calls")
    gradient = _margin_gradient(counter, x)
    if not flags and _differ(gradient, _margin_gradient(counter, x.flip(0)).flip(0)):
        flags.add("mixes-rows")
    return Preflight(model, first.shape[1], tuple(sorted(flags)), canonical.rows + counter.rows, share)


def gradients_masked(by_attack: Sequence[AttackTally]) -> bool:
    """Whether Square fooled examples after gradient attacks in a chain (the warning of AutoAttack)."""
    attacks = [part.attack for part in by_attack]
    return any(part.attack == "square" and part.broke > 0 and attacks[0] != "square" for part in by_attack)


def at_chance(correct: int, n: int, num_classes: int) -> bool:
    """Whether clean accuracy is not above 1/C: one-sided exact binomial test with p > .01; False if n < 50."""
    from scipy.stats import binomtest

    return n >= 50 and float(binomtest(correct, n, 1 / num_classes, alternative="greater").pvalue) > 0.01


def _logits(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """float32 [B, C]. InputError when the model returns something else, or a logit is not finite."""
    output = called(model, x)
    if not isinstance(output, Tensor):
        hint = outputs.advice(output) or ": wrap it to return them"
        raise InputError(f"the model returns {outputs.described(output)}, not a tensor of logits{hint}")
    if output.dim() != 2 or len(output) != len(x) or output.shape[1] < 2 or not output.is_floating_point():
        hint = outputs.ONE_LOGIT if output.is_floating_point() and output.shape in ((len(x),), (len(x), 1)) else ""
        raise InputError(
            f"the model maps {len(x)} images to {output.dtype} {tuple(output.shape)}: expected float logits "
            f"[{len(x)}, C] with C of at least 2{hint}"
        )
    if not bool(torch.isfinite(output).all()):
        rows = (~torch.isfinite(output).all(1)).nonzero().flatten()[:8].tolist()
        raise InputError(f"the model's logits are not finite for images {rows} of the first batch")
    return output.float()


def _differ(gradient: Tensor, other: Tensor) -> bool:
    """Whether the gradient of any row [B, ...] is another one in another order of the batch, beyond rounding at a kink
    of a ReLU."""
    lengths = gradient.flatten(1).norm(dim=1)
    distance = (gradient - other).flatten(1).norm(dim=1)
    return bool((distance > _SAME_GRADIENT * lengths.clamp(min=1e-3 * float(lengths.max()))).any())


def _margin_gradient(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """[B, ...]: the gradient of the margin of the two largest logits. InputError when there is none."""
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        output = called(model, point)
        if not output.requires_grad:
            raise InputError("the model is not differentiable w.r.t. its input: is it under no_grad, or detached?")
        top = output.topk(2, dim=1).values
        try:
            gradient = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), point, allow_unused=True)[0]
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"the model's gradient w.r.t. its input cannot be computed: {reason} (re-entrant checkpointing? use "
                "use_reentrant=False)"
            ) from error
    if gradient is None:
        raise InputError("the model is not differentiable w.r.t. its input: its output does not depend on it")
    return gradient


def _snapshot(model: nn.Module) -> list[object]:
    """The versions and sums of parameters and buffers, and the plain attributes of every sub-module."""
    snapshot: list[object] = [
        (name, tensor._version, float(tensor.detach().double().sum()))
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if tensor.numel()
    ]
    return [*snapshot, *plain_attributes(model)]


def plain_attributes(model: nn.Module) -> list[tuple[str, list[tuple[str, object]]]]:
    """The numbers, texts and truth values that are attributes of every sub-module, by its name."""
    found: list[tuple[str, list[tuple[str, object]]]] = []
    for name, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | bool)}
        found.append((name, sorted(plain.items())))
    return found

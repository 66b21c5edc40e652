"""The pre-flight: refuses models and examples that would make numbers wrong, and flags suspicious models.

Refused with InputError: any sub-module in train mode, logits that are not a finite [n, C] tensor, no gradient to the
input, images that are not float in [0,1], labels of a wrong shape, type or range, a length mismatch, no example. Flags
are names from `FLAGS` and part of the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.base.results import AttackTally
from transferbench.engine.row_counter import RowCounter

FLAGS = {
    "softmax-output": "the outputs are non-negative and sum to 1: probabilities, whose gradients vanish",
    "zero-gradient": "the logit margin of some examples has no gradient: gradient attacks are blind there",
    "randomised": "two calls on the same images differ: accuracy under attack is not well defined",
    "state-between-calls": "a call changes the model's buffers, parameters, attributes or later outputs",
    "accuracy-at-chance": "clean accuracy is not above chance (one-sided binomial test, p > .01, n >= 50)",
    "gradient-inside": "the forward pass computes gradients itself (optimisation at test time): attacks may miss them",
    "gradients-masked": "Square, which uses no gradients, fooled examples that had survived the gradient attacks",
    "untrained": "a smoke run trained it, or its source, for a few steps on synthetic data: its numbers mean nothing",
    "clamped-input": "images lay outside [0,1] by at most 1e-6 and were clamped",
}

_SLACK = 1e-6
_REPEATABLE = 1e-6


@dataclass(frozen=True)
class Preflight:
    """The report of `check_model`: number of classes C, sorted flags, whether attacks may search on a copy of the model
    (engine/search_model.py), and the number of rows that passed through it."""

    num_classes: int
    flags: tuple[str, ...]
    copyable: bool
    rows: int


def check_examples(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, bool]:
    """(images float32 in [0,1], labels int64, whether values were clamped). InputError for other images or labels."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"images must be a float tensor with values in [0,1], not {kind}")
    if x.dim() < 2 or len(x) == 0:
        raise InputError(f"images have shape {tuple(x.shape)}: expected [n, ...] with n of at least 1")
    if not isinstance(y, Tensor) or y.dim() != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        kind = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise InputError(f"labels must be a one-dimensional integer tensor, not {kind}")
    if len(x) != len(y):
        raise InputError(f"{len(x)} images but {len(y)} labels")
    if not bool(torch.isfinite(x).all()):
        raise InputError("images hold a NaN or an infinity")
    low, high = float(x.min()), float(x.max())
    if low < -_SLACK or high > 1 + _SLACK:
        raise InputError(
            f"images lie in [{low:.6g}, {high:.6g}], not in [0,1]: scale them, and put normalisation into the model"
        )
    return x.float().clamp(0, 1), y.long(), low < 0 or high > 1


def check_labels(y: Tensor, num_classes: int) -> None:
    """InputError when a label is outside 0..C-1, which would count as never classified correctly."""
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= num_classes:
        raise InputError(f"labels lie in {low}..{high}, but the model has classes 0..{num_classes - 1}")


def check_model(model: nn.Module, x: Tensor, y: Tensor | None) -> Preflight:
    """Test the model on some images [B, ...]. InputError when it is refused; the report holds the flags.

    `y` is None for a model whose classes are not the images' (a source with other labels).
    """
    training = [name for name, module in model.named_modules() if module.training]
    if training:
        where = f"sub-module {training[0]}" if training[0] else "the model"
        raise InputError(f"{where} is in train mode ({len(training)} modules in all): call model.eval() first")
    flags: set[str] = set()
    before, counter = _snapshot(model), RowCounter(model)
    with torch.no_grad():
        with _record_autograd_calls() as calls:
            first = _logits(counter, x)
        if calls:
            flags.add("gradient-inside")
        again = _logits(counter, x)
        counter(x.flip(0) * 0.5)
        later = _logits(counter, x)
    if y is not None:
        check_labels(y, first.shape[1])
    spread = max(float(first.max() - first.min()), 1e-12)
    if float((first - again).abs().max()) > _REPEATABLE * spread:
        flags.add("randomised")
    elif float((first - later).abs().max()) > _REPEATABLE * spread:
        flags.add("state-between-calls")
    if _snapshot(model) != before:
        flags.add("state-between-calls")
    if bool((first >= 0).all()) and bool(((first.sum(1) - 1).abs() < 1e-4).all()):
        flags.add("softmax-output")
    if _has_zero_gradient(counter, x):
        flags.add("zero-gradient")
    copyable = not flags & {"randomised", "state-between-calls"}
    return Preflight(first.shape[1], tuple(sorted(flags)), copyable, counter.rows)


def gradients_masked(by_attack: Sequence[AttackTally]) -> bool:
    """Whether Square fooled examples after gradient attacks in a chain (the warning of AutoAttack)."""
    attacks = [part.attack for part in by_attack]
    return any(part.attack == "square" and part.broke > 0 and attacks[0] != "square" for part in by_attack)


@contextmanager
def _record_autograd_calls() -> Iterator[list[str]]:
    """Within the block calls of torch.autograd.grad and backward (also by Tensor.backward) are added to the list."""
    calls: list[str] = []
    originals = {name: getattr(torch.autograd, name) for name in ("grad", "backward")}

    def recording(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return originals[name](*args, **kwargs)

        return call

    try:
        for name in originals:
            setattr(torch.autograd, name, recording(name))
        yield calls
    finally:
        for name, function in originals.items():
            setattr(torch.autograd, name, function)


def at_chance(correct: int, n: int, num_classes: int) -> bool:
    """Whether clean accuracy is not above 1/C: one-sided exact binomial test with p > .01; False if n < 50."""
    from scipy.stats import binomtest

    return n >= 50 and float(binomtest(correct, n, 1 / num_classes, alternative="greater").pvalue) > 0.01


def _logits(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """float32 [B, C]. InputError when the model returns something else, or a logit is not finite."""
    output = model(x)
    if not isinstance(output, Tensor):
        raise InputError(f"the model returns {type(output).__name__}, not a tensor of logits: wrap it to return them")
    if output.dim() != 2 or len(output) != len(x) or output.shape[1] < 2 or not output.is_floating_point():
        raise InputError(
            f"the model maps {len(x)} images to {output.dtype} {tuple(output.shape)}: expected float logits "
            f"[{len(x)}, C] with C of at least 2"
        )
    if not bool(torch.isfinite(output).all()):
        rows = (~torch.isfinite(output).all(1)).nonzero().flatten()[:8].tolist()
        raise InputError(f"the model's logits are not finite for images {rows} of the first batch")
    return output.float()


def _has_zero_gradient(model: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether the margin of the two largest logits has a gradient of exactly zero in some row.

    InputError when the model is not differentiable.
    """
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        output = model(point)
        if not output.requires_grad:
            raise InputError("the model is not differentiable w.r.t. its input: is it under no_grad, or detached?")
        top = output.topk(2, dim=1).values
        gradient = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), point, allow_unused=True)[0]
    if gradient is None:
        raise InputError("the model is not differentiable w.r.t. its input: its output does not depend on it")
    return not bool(gradient.flatten(1).abs().amax(1).gt(0).all())


def _snapshot(model: nn.Module) -> list[object]:
    """The versions and sums of parameters and buffers, and the plain attributes of every sub-module."""
    snapshot: list[object] = [
        (name, tensor._version, float(tensor.detach().double().sum()))
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if tensor.numel()
    ]
    for name, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | bool)}
        snapshot.append((name, sorted(plain.items())))
    return snapshot

"""Rewrites a traced copy so that its ReLUs overwrite their input, and in the backward pass the gradient; equal bits.

A new buffer costs page faults, for a small network sometimes more than the arithmetic; torch's own ReLU6 in place also
keeps a copy of its input. Only the search model's own copy is rewritten (engine/search_model.py), never a caller's
model.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
"""Layers whose backward needs their input, not their output, so that the output may be overwritten; it returns a new
tensor, which may be overwritten as well."""
_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d)
"""The same holds of these, but not of classes derived from them, which may apply an activation behind the norm."""
LARGE = 2**15
"""Number of entries from which a gradient is overwritten: 128 kB, above which glibc maps every new buffer."""
_SUMS: tuple[object, ...] = (operator.add, torch.add, "add")
_RELUS: tuple[object, ...] = (F.relu, torch.relu, "relu", "relu_")


def overwrite_relus(traced: nn.Module) -> nn.Module:
    """Make the ReLUs and ReLU6s of a traced module in-place wherever nothing else reads their input.

    Returns the same module.
    """
    assert isinstance(traced, fx.GraphModule)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        overwriting = _overwriting(node, modules)
        if overwriting is None or not isinstance(before := node.args[0], fx.Node):
            continue
        if len(before.users) > 1 or not (_is_layer(before, modules) or before.target in _SUMS):
            continue
        # With a layer among the users the incoming gradient is a new tensor: the layer's, or a sum with it. An addition
        # passes the same tensor to both of its operands.
        owned = any(_is_layer(user, modules) for user in node.users)
        with traced.graph.inserting_after(node):
            new = traced.graph.call_function(overwriting, (before, owned))
        node.replace_all_uses_with(new)
        traced.graph.erase_node(node)
    traced.recompile()
    return traced


def _overwriting(node: fx.Node, modules: dict[str, nn.Module]) -> Any:
    """The function that takes the place of a node; None for one that is neither a ReLU nor a ReLU6."""
    kind = type(modules[str(node.target)]) if node.op == "call_module" else None
    if kind is nn.ReLU or node.target in _RELUS:
        return _overwriting_relu
    if kind is nn.ReLU6 or node.target is F.relu6:
        return _overwriting_relu6
    return None


def _is_layer(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op != "call_module":
        return False
    module = modules[str(node.target)]
    return isinstance(module, _LAYERS) or type(module) in _NORMS


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.relu_())
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        (gradient,) = gradients
        # A gradient that is expanded or has another layout is copied by the operation anyway.
        if gradient.stride() != output.stride():
            return torch.ops.aten.threshold_backward(gradient, output, 0)
        return torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)


class _Relu6(torch.autograd.Function):
    """Its derivative is read off its output: zero at both bounds, as torch's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, owned: bool) -> Tensor:
        ctx.mark_dirty(x)
        ctx.owned = owned
        ctx.save_for_backward(x.clamp_(0, 6))
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors
        (gradient,) = gradients
        if not ctx.owned or gradient.stride() != output.stride():
            return torch.ops.aten.hardtanh_backward(gradient, output, 0, 6), None
        return torch.ops.aten.hardtanh_backward.grad_input(gradient, output, 0, 6, grad_input=gradient), None


# For small buffers a Python function costs more than it saves.
def _overwriting_relu(x: Tensor, owned: bool) -> Tensor:
    return _Relu.apply(x) if owned and x.numel() >= LARGE else x.relu_()


def _overwriting_relu6(x: Tensor, owned: bool) -> Tensor:
    return _Relu6.apply(x, owned) if x.numel() >= LARGE else F.relu6(x)

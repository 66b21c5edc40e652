"""Rewrites a traced copy so that its ReLUs overwrite their input, and in the backward pass the gradient; equal bits.

A new buffer costs page faults, for a small network sometimes more than the arithmetic. Only the search model's own copy
is rewritten (engine/search_model.py), never a caller's model.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
"""Layers whose backward needs their input, not their output, so that the output may be overwritten; it returns a new
tensor, which may be overwritten as well."""
LARGE = 2**15
"""Number of entries from which a gradient is overwritten: 128 kB, above which glibc maps every new buffer."""
_SUMS: tuple[object, ...] = (operator.add, torch.add, "add")
_RELUS: tuple[object, ...] = (F.relu, torch.relu, "relu", "relu_")


def overwrite_relus(traced: nn.Module) -> nn.Module:
    """Make the ReLUs of a traced module in-place wherever nothing else reads their input. Returns the same module."""
    assert isinstance(traced, fx.GraphModule)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if not _is_relu(node, modules) or not isinstance(before := node.args[0], fx.Node):
            continue
        if len(before.users) > 1 or not (_is_layer(before, modules) or before.target in _SUMS):
            continue
        # With a layer among the users the incoming gradient is a new tensor: the layer's, or a sum with it. An addition
        # passes the same tensor to both of its operands.
        owned = any(_is_layer(user, modules) for user in node.users)
        with traced.graph.inserting_after(node):
            new = traced.graph.call_function(_overwriting_relu, (before, owned))
        node.replace_all_uses_with(new)
        traced.graph.erase_node(node)
    traced.recompile()
    return traced


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules[str(node.target)]) is nn.ReLU
    return node.target in _RELUS


def _is_layer(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    return node.op == "call_module" and type(modules[str(node.target)]) in _LAYERS


class _Overwriting(torch.autograd.Function):
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


def _overwriting_relu(x: Tensor, owned: bool) -> Tensor:
    # For small buffers the Python function costs more than it saves.
    return _Overwriting.apply(x) if owned and x.numel() >= LARGE else x.relu_()

"""ReLUs of a traced copy that write over their input, and over their gradient on the way back: the same bits.

A fresh buffer costs page faults, on a small network sometimes more than the arithmetic that fills it. Only the pool's
own copy is rewritten (engine/frozen.py), never a caller's model.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
"""Their backward needs their input, not their output, so that the output may be written over; and it returns a fresh
tensor, so that this may be written over in turn."""
LARGE = 2**15
"""Entries from which a gradient is written over: 128 kB, where glibc begins to map buffers afresh."""
_SUMS: tuple[object, ...] = (operator.add, torch.add, "add")
_RELUS: tuple[object, ...] = (F.relu, torch.relu, "relu", "relu_")


def overwrite_relus(traced: nn.Module) -> nn.Module:
    """The same traced module with ReLUs in place wherever nothing else reads what they overwrite; not a copy."""
    assert isinstance(traced, fx.GraphModule)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if not _is_relu(node, modules) or not isinstance(before := node.args[0], fx.Node):
            continue
        if len(before.users) > 1 or not (_is_layer(before, modules) or before.target in _SUMS):
            continue
        # With a layer among its readers, the gradient that arrives is that layer's own or a sum made on the way. An
        # addition alone hands one tensor to both its sides.
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
        # A gradient that is expanded or laid out otherwise is copied by the operation anyway.
        if gradient.stride() != output.stride():
            return torch.ops.aten.threshold_backward(gradient, output, 0)
        return torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)


def _overwriting_relu(x: Tensor, owned: bool) -> Tensor:
    # A function in Python costs more than a small buffer does.
    return _Overwriting.apply(x) if owned and x.numel() >= LARGE else x.relu_()

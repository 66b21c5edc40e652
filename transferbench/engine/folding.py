"""Folds the batch norms of a network's copy into the convolutions and linear layers before them.

The layers themselves are not traced, so that networks whose layers compute their padding (timm's `Conv2dSame`) or check
their input (timm's `BatchNormAct2d`) fold as well.
"""

from __future__ import annotations

from collections import Counter

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

_LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)


def folded(model: nn.Module) -> fx.GraphModule:
    """The traced network with its batch norms folded; takes the modules of `model` (eval mode) and changes them.

    Folds where a batch norm with running statistics alone reads a layer that is called once. Errors of a network that
    cannot be traced are those of torch.fx. A layer that does more with its weights than nn.Conv2d or nn.Linear (weight
    standardisation) folds to something else: the caller compares the answers.
    """
    graph = _Tracer().trace(model)
    modules = dict(model.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in list(graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)) or norm.running_mean is None:
            continue
        then = _after(norm)
        before = node.args[0] if node.args else None
        if then is None or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        if len(before.users) > 1 or calls[before.target] > 1 or calls[node.target] > 1:
            continue
        if not _fold_into(modules[str(before.target)], norm):
            continue
        output = before
        with graph.inserting_before(node):
            for name in then:
                output = graph.call_module(f"{node.target}.{name}", (output,))
        node.replace_all_uses_with(output)
        graph.erase_node(node)
    return fx.GraphModule(model, graph)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LAYERS) or super().is_leaf_module(m, module_qualified_name)


def _after(norm: nn.Module) -> list[str] | None:
    """The names of the modules that a batch norm applies to its result; None for a class that is not known."""
    if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d):
        return []
    if type(norm).__name__ == "BatchNormAct2d":
        return [name for name in ("drop", "act") if not isinstance(getattr(norm, name), nn.Identity)]
    return None


def _fold_into(layer: nn.Module, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> bool:
    """Whether the layer could take the batch norm's statistics and weights."""
    if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
        fused: nn.Module = fuse_conv_bn_eval(layer, norm)
    elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
        fused = fuse_linear_bn_eval(layer, norm)
    else:
        return False
    layer.weight, layer.bias = fused.weight, fused.bias  # type: ignore[assignment]
    return True

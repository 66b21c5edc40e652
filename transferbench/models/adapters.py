"""Adapters: small bottlenecks behind layers of a network, which alone are trained beside the head.

h + up(act(down(h))), `up` being 0 at the start, so that the network begins unchanged. In a transformer behind every
MLP, inside the residual (Pfeiffer et al. 2021, arXiv:2005.00247), linear with GELU; elsewhere behind every convolution
of more than one pixel but the first, of 1x1 convolutions with ReLU, inside the residual too, before batch norm (series
adapters after Rebuffi et al. 2017, arXiv:1705.08045). They cannot be merged into the weights:
`adapter:<reduction>:<network>` is a network of its own.
"""

from __future__ import annotations

from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.models.features import submodule


class Bottleneck(nn.Module):
    """What an adapter adds to features of `width` channels. `maps`: [B, C, H, W]; else the channels come last."""

    def __init__(self, width: int, reduction: int, maps: bool) -> None:
        super().__init__()
        inner = max(width // reduction, 1)
        self.down: nn.Module = nn.Conv2d(width, inner, 1) if maps else nn.Linear(width, inner)
        self.up = nn.Conv2d(inner, width, 1) if maps else nn.Linear(inner, width)
        self.act = nn.ReLU() if maps else nn.GELU()
        nn.init.zeros_(self.up.weight)
        if self.up.bias is not None:
            nn.init.zeros_(self.up.bias)

    def forward(self, h: Tensor) -> Tensor:
        added: Tensor = self.up(self.act(self.down(h)))
        return added


class Adapted(nn.Module):
    """A layer with an adapter behind it."""

    def __init__(self, inner: nn.Module, adapter: Bottleneck) -> None:
        super().__init__()
        self.inner, self.adapter = inner, adapter

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.inner(x)
        return h + self.adapter(h)


def insert(model: nn.Module, reduction: int) -> None:
    """Put adapters into the network, in place. InputError where there is no place for one."""
    mlps = [(name, module) for name, module in model.named_modules() if name.rpartition(".")[2] == "mlp"]
    places = [(name, _width(module), False) for name, module in mlps if _width(module)]
    if not places:
        convolutions = [(name, one) for name, one in model.named_modules() if isinstance(one, nn.Conv2d)][1:]
        places = [(name, one.out_channels, True) for name, one in convolutions if one.kernel_size != (1, 1)]
    if not places:
        raise InputError(
            f"the network {type(model).__name__} has no place for adapters: no module `mlp` that ends with a linear "
            "layer, and no convolution but the first"
        )
    for name, width, maps in places:
        parent, _, own = name.rpartition(".")
        of = submodule(model, parent) if parent else model
        setattr(of, own, Adapted(submodule(model, name), Bottleneck(width, reduction, maps)))


def is_part(name: str) -> bool:
    """Whether the name of a parameter is that of an adapter."""
    return ".adapter." in f".{name}"


def _width(mlp: nn.Module) -> int:
    """The channels of an MLP's output, 0 where it does not end with a linear layer."""
    if isinstance(mlp, Adapted):
        return _width(mlp.inner)
    weighted = [module for module in mlp.modules() if list(module.parameters(recurse=False))]
    last = weighted[-1] if weighted else mlp
    return last.out_features if isinstance(last, nn.Linear) else 0

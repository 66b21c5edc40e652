"""Overwriting ReLUs: the same bits forwards and backwards, and nothing is overwritten that somebody still reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from transferbench import attacks
from transferbench.attacks import lockstep
from transferbench.base.specifications import AttackSpec, Norm, ThreatModel
from transferbench.engine import inplace_relu
from transferbench.engine.gradients import outputs
from transferbench.engine.inplace_relu import overwrite_relus
from transferbench.engine.judge import Judge
from transferbench.engine.memory import Rows
from transferbench.engine.pool import Pool
from transferbench.engine.search_model import as_is
from transferbench.engine.verdicts import Examples


class Layers(nn.Module):
    """Two convolutions, a batch norm and a head to be wired in any way."""

    def __init__(self, wiring: Callable[[Layers, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.side, self.norm, self.relu = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU()
        self.relu6 = nn.ReLU6(inplace=True)
        self.head, self.dropout, self.wiring = nn.Linear(6, 5), nn.Dropout(0.5), wiring

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.wiring(self, x).mean((2, 3)))


# Per wiring: how many of its ReLUs may write over their input, and how many of those over their gradient too.
WIRINGS: dict[str, tuple[Callable[[Layers, Tensor], Tensor], int, int]] = {
    "one after the other": (lambda n, x: n.relu(n.second(n.relu(n.first(x)))), 2, 1),
    "functions and methods": (lambda n, x: torch.relu(n.second(F.relu(n.norm(n.first(x).relu())))), 3, 2),
    "the input is read again": (lambda n, x: (c := n.first(x)) * n.second(n.relu(c)), 0, 0),
    "an addition hands one gradient to both sides": (lambda n, x: n.relu(n.first(x)) + n.relu(n.side(x)), 2, 0),
    "a skip connection": (lambda n, x: n.relu(n.second(h := n.relu(n.first(x))) + h), 2, 1),
    "twice the same": (lambda n, x: n.second(h := n.relu(n.first(x))) * n.relu(n.second(h)), 2, 1),
    "dropout between": (lambda n, x: n.second(n.dropout(n.relu(n.first(x)))), 1, 0),
    "what is no layer needs its output": (lambda n, x: n.relu(torch.sigmoid(n.first(x))), 0, 0),
    "the image itself": (lambda n, x: n.first(n.relu(x)), 0, 0),
    "both bounds": (lambda n, x: n.relu6(20 * n.second(n.relu6(n.first(40 * x)))), 1, 1),
    "both bounds behind a batch norm": (lambda n, x: n.second(F.relu6(n.norm(n.first(40 * x)))), 1, 1),
    "both bounds, one gradient to both sides": (
        lambda n, x: n.relu6(n.first(40 * x)) + n.relu6(n.side(x)),
        2,
        0,
    ),
    "a scaled skip reads the output": (lambda n, x: n.relu(h := n.relu(n.first(x))) + 2 * h, 1, 0),
}


@pytest.mark.parametrize("rows", [4, 100])
@pytest.mark.parametrize("name", WIRINGS)
def test_the_same_bits(name: str, rows: int) -> None:
    """100 rows make buffers that are large enough to have their gradient written over."""
    wiring, overwriting, owning = WIRINGS[name]
    model = Layers(wiring).eval()
    x = torch.rand(rows, 3, 8, 8, generator=torch.Generator().manual_seed(1)) - 0.3
    before = x.clone()
    expected = outputs(fx.symbolic_trace(model), x)
    rewritten = overwrite_relus(fx.symbolic_trace(model))
    assert isinstance(rewritten, fx.GraphModule)
    assert (len(model.first(x).flatten()) >= inplace_relu.LARGE) is (rows == 100)
    for _ in range(2):
        for ours, theirs in zip(outputs(rewritten, x), expected, strict=True):
            assert torch.equal(ours, theirs)
    assert torch.equal(x, before)
    if "both bounds" in name:
        assert_clipped(rewritten, x)
    written = [node for node in rewritten.graph.nodes if "overwriting" in str(node.target)]
    assert (len(written), sum(bool(node.args[1]) for node in written)) == (overwriting, owning)


def assert_clipped(network: fx.GraphModule, x: Tensor) -> None:
    """That the inputs of its first ReLU6 stand on both sides of both bounds, so that equal bits say something."""
    values = fx.Interpreter(network)
    first = next(node for node in network.graph.nodes if "overwriting_relu6" in str(node.target))
    seen: list[Tensor] = []
    run = values.run_node

    def keep(node: fx.Node) -> object:
        if node is first:
            seen.append(values.env[node.args[0]].clone())
        return run(node)

    values.run_node = keep  # type: ignore[method-assign]
    values.run(x)
    (values_before,) = seen
    for part in (values_before < 0, values_before > 6, (values_before > 0) & (values_before < 6)):
        assert part.any()


class Linear(nn.Module):
    """A linear model whose backward hands out a tensor that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.linspace(-1, 1, 48).view(3, 4, 4)
        self.kept = self.weight.expand(16, 3, 4, 4).clone()
        kept, weight = self.kept, self.weight

        class Keeps(torch.autograd.Function):
            @staticmethod
            def forward(ctx: object, x: Tensor) -> Tensor:
                return (x * weight).sum((1, 2, 3))

            @staticmethod
            def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
                return kept

        self.score = Keeps.apply

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x)
        return torch.stack([score, torch.zeros_like(score) + 0.3], 1)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_attacks_write_over_no_gradient_of_somebody_else(norm: Norm) -> None:
    network = Linear()
    before = network.kept.clone()
    x, y = torch.rand(16, 3, 4, 4, generator=torch.Generator().manual_seed(2)), torch.ones(16, dtype=torch.int64)
    threat = ThreatModel.parse(norm, "0.01")
    attack = attacks.build(AttackSpec.of("apgd-ce", n_iter=5), threat, 2)
    lockstep.maximise(attack, network, x, y, torch.arange(16))
    pool = Pool([attack], threat, as_is(network), Judge(network), Rows(16, 16), 0)
    pool.run(Examples(x, y, torch.arange(16)), network(x))
    assert torch.equal(network.kept, before)

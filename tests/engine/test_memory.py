"""Out of memory, injected: half the rows, the same verdicts, and an end in words where nothing fits."""

from __future__ import annotations

import logging

import pytest
import torch
from support.nets import Small
from torch import Tensor, nn

from transferbench import attacks, data
from transferbench.base.checkpoint import NO_CHECKPOINT
from transferbench.base.errors import FaultError
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.engine.chain import Target, run_chain
from transferbench.engine.crafting import Crafting
from transferbench.engine.memory import Rows, is_out_of_memory
from transferbench.engine.source_model import SourceModel
from transferbench.engine.verdicts import Examples
from transferbench.models.features import Layers

CHAIN = Chain(
    "L2",
    ThreatModel.parse("L2", "0.3"),
    (AttackSpec.of("apgd-ce", n_iter=8, restarts=2), AttackSpec.of("apgd-t", n_iter=8, targets=3)),
)


class Narrow(nn.Module):
    """A network for which memory suffices for so many rows."""

    def __init__(self, model: nn.Module, fits: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.model, self.fits, self.error, self.refused = model, fits, error, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.fits:
            self.refused += 1
            raise self.error("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return self.model(x)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_half_the_rows_give_the_same_verdicts(
    small: Small, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    plain = Target.prepare(small.model, small.x, small.y)
    whole = run_chain(plain, CHAIN, Examples(small.x, small.y, small.ids), 0)
    target = Target.prepare(small.model, small.x, small.y)
    narrow = Narrow(small.model, 20, error)
    frozen = Narrow(target.search.network, 20, error)  # type: ignore[arg-type]
    target.judge.model = narrow
    object.__setattr__(target.search, "network", frozen)
    with caplog.at_level(logging.WARNING):
        got = run_chain(target, CHAIN, Examples(small.x, small.y, small.ids), 0)
    assert narrow.refused > 0
    assert frozen.refused > 0
    assert [one.fooled for one in got.verdicts] == [one.fooled for one in whole.verdicts]
    if small.x.is_cpu:  # a GPU's algorithms differ with the batch size
        assert torch.equal(got.points, whole.points)
        assert (got.cost.forwards, got.cost.backwards) == (whole.cost.forwards, whole.cost.backwards)
    assert target.rows.most <= 20
    assert target.rows.halvings > 0
    assert "going on with" in caplog.text
    refused = narrow.refused + frozen.refused
    run_chain(target, CHAIN, Examples(small.x, small.y, small.ids), 0)
    assert narrow.refused + frozen.refused == refused, "what did not fit once is not tried again"


def test_crafting_halves_its_rows_too(small: Small) -> None:
    shard, threat = data.load("letters", "test").first(40).on(small.x.device), ThreatModel.parse("Linf", "0.1")
    layers = Layers(("stage1", "stage2", "stage3", "stage4"), "head")
    spec = AttackSpec.of("pretrained-neuron", neurons=2, n_iter=3)
    attack = attacks.build(spec, threat, 26)

    def craft(source: SourceModel) -> Tensor:
        return Crafting(source, attack, threat, shard, 0, Rows(64, 16), NO_CHECKPOINT).run()

    whole = craft(SourceModel(small.model, layers))
    inner = Narrow(small.model, 17)
    narrow = SourceModel(inner, Layers(tuple(f"model.{stage}" for stage in layers.stages), "model.head"))
    # A GPU's algorithms differ with the batch size, and with them the sign of a gradient that is nearly zero.
    same = torch.isclose(craft(narrow), whole, atol=1e-6).float().mean()
    assert float(same) == 1 if small.x.is_cpu else float(same) > 0.98
    assert inner.refused > 0


def test_where_nothing_fits_it_is_said() -> None:
    def never(most: int) -> None:
        raise torch.OutOfMemoryError(f"no room for {most}")

    rows = Rows(64, 16)
    with pytest.raises(FaultError, match="out of memory with 16 rows at once"):
        rows.within_memory(never)
    assert rows.halvings == 2


def test_other_errors_are_not_taken_for_it() -> None:
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: "))

    def broken(most: int) -> None:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        Rows(64, 16).within_memory(broken)

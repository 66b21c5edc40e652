"""The search in bfloat16: what it may change, what it may not, and where it is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.nets import Small
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.base.settings import EngineOptions
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.engine import bf16, chain
from transferbench.engine.chain import Target, run_chain
from transferbench.engine.judge import check_admissible
from transferbench.engine.search_model import copy_of
from transferbench.engine.verdicts import ChainResult, Examples

pytestmark = pytest.mark.skipif(not bf16.has_bf16(torch.device("cpu")), reason="this processor has no native bfloat16")

LINF = ThreatModel.parse("Linf", "0.08")
CHAIN = Chain("Linf", LINF, (AttackSpec.of("apgd-ce", n_iter=20, restarts=1), AttackSpec.of("apgd-t", n_iter=20)))


def run(case: Small, precision: Any, near: float | None = None) -> tuple[Target, ChainResult]:
    target = Target.prepare(case.model, case.x, case.y, None, EngineOptions(precision=precision))
    with pytest.MonkeyPatch.context() as patch:
        if near is not None:
            patch.setattr(chain, "NEAR", near)
        return target, run_chain(target, CHAIN, Examples(case.x, case.y, case.ids), 0)


def robust(result: ChainResult) -> set[int]:
    return {verdict.example for verdict in result.verdicts if not verdict.fooled}


def test_every_hit_is_one_of_the_original_in_fp32(small: Small) -> None:
    target, result = run(small, "bf16")
    assert target.search.precision == "bf16"
    fooled = torch.tensor([verdict.rank >= 0 for verdict in result.verdicts], device=small.x.device)
    assert 5 < int(fooled.sum()) < len(fooled) - 5
    with torch.no_grad():
        predicted = small.model(result.points).argmax(1)
    assert torch.equal(
        predicted[fooled], torch.tensor([v.pred for v in result.verdicts], device=small.x.device)[fooled]
    )
    assert bool((predicted != small.y)[fooled].all())
    check_admissible(LINF, small.x, result.points, small.ids)


def test_an_example_near_the_boundary_is_searched_again_in_fp32(small: Small) -> None:
    _, exact = run(small, "fp32")
    _, once = run(small, "bf16", near=0.0)
    _, all_again = run(small, "bf16", near=2.0)
    assert exact.searched_again == once.searched_again == 0
    assert all_again.searched_again == len(robust(once))
    # With every survivor searched again nothing is robust that fp32 fools.
    assert robust(all_again) <= robust(exact)
    assert all_again.cost.forwards > once.cost.forwards, "both searches are counted"
    _, usual = run(small, "bf16")
    assert 0 <= usual.searched_again < len(robust(once))
    assert len(robust(usual) - robust(exact)) <= 1


def test_first_layer_and_head_stay_in_fp32(small: Small) -> None:
    """With both in bf16 the logits differ more; by how much depends on the processor's bf16."""
    search = copy_of(small.model, small.x[:16])
    mixed = bf16.in_bf16(search, small.model, small.x[:16]).network
    whole = copy.deepcopy(search.module).to(torch.bfloat16)
    with torch.no_grad():
        exact = small.model(small.x)
        errors = [
            float((exact - logits).abs().mean()) for logits in (mixed(small.x), whole(small.x.bfloat16()).float())
        ]
    assert errors[0] < 0.95 * errors[1]
    assert next(small.model.parameters()).dtype == torch.float32, "the original is as it was"


class Steep(nn.Module):
    """Logits that are differences of large numbers: eight bits do not show them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.up = net, nn.Linear(10, 10, bias=False)
        self.down = nn.Linear(10, 10, bias=False)
        with torch.no_grad():
            shift = torch.full((10, 10), 300.0)
            self.up.weight.copy_(torch.eye(10) + shift)
            self.down.weight.copy_(torch.linalg.inv(torch.eye(10) + shift))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(self.net(x)))


def test_where_it_is_refused(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--precision bf16: this network's logits differ in it by"):
        run(Small(Steep(small.model).to(small.x.device).eval(), small.x, small.y, small.ids), "bf16")
    monkeypatch.setattr(bf16, "_FLAGS", ("no such flag",))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(InputError, match="no native bfloat16"):
        run(small, "bf16")


def test_a_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bf16, "has_bf16", lambda device: True)
    x = torch.rand(16, 1, 2, 2)
    weight = torch.rand(4, 3)
    with pytest.raises(InputError, match="no layers with weights"):
        Target.prepare(
            lambda images: images.flatten(1) @ weight,
            x,
            torch.zeros(16, dtype=torch.int64),
            options=EngineOptions(precision="bf16"),
        )

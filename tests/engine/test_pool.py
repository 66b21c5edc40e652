"""The pool against the naive loop: the same verdicts, attribution and images, bit for bit, in any batch."""

from __future__ import annotations

import pytest
import torch
from support.nets import Small

from transferbench.attacks import build, lockstep
from transferbench.base.specifications import AttackSpec, Chain, Norm, ThreatModel
from transferbench.engine import pool
from transferbench.engine.chain import Target, run_chain
from transferbench.engine.verdicts import Examples

RADII: dict[Norm, str] = {"Linf": "0.06", "L2": "0.25", "L1": "0.9"}


def chain_of(norm: Norm, n_iter: int = 15) -> Chain:
    attacks = [AttackSpec.of("apgd-ce", n_iter=n_iter, restarts=2), AttackSpec.of("apgd-t", n_iter=n_iter, targets=3)]
    if norm == "Linf":
        attacks.insert(0, AttackSpec.of("pgd", k=5))
    return Chain(norm, ThreatModel.parse(norm, RADII[norm]), tuple(attacks))


def oracle(net: Small, chain: Chain, target: Target) -> tuple[list[int], torch.Tensor]:
    """Every try of every attack on every example, run to its end; the lowest rank that fools decides."""
    ranks, points = [-1] * len(net.x), net.x.clone()
    rank = 0
    for spec in chain.attacks:
        attack = build(spec, chain.threat, 10)
        for attempt in range(attack.tries):
            keys = lockstep.try_keys(0, chain.threat.norm, chain.threat.eps.text, rank, net.ids)
            found = lockstep.maximise(attack, target.search.network, net.x, net.y, keys, net.logits, attempt)
            for row in found.fooled.nonzero().flatten().tolist():
                if ranks[row] < 0:
                    ranks[row], points[row] = rank, found.fooling[row]
            rank += 1
    return ranks, points


@pytest.mark.cpu_only  # bit for bit: a GPU's algorithms differ with the batch size
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_mixed_pool_is_the_naive_loop(small: Small, norm: Norm) -> None:
    net = small.correct().first(30)
    target, chain = Target.prepare(net.model, net.x, net.y), chain_of(norm, 10)
    assert target.search.folded
    ranks, points = oracle(net, chain, target)
    assert 3 <= sum(rank >= 0 for rank in ranks) <= len(ranks) - 3
    order = torch.randperm(len(net.x), generator=torch.Generator().manual_seed(1))
    for slots, at in ((4, order), (7, torch.arange(len(net.x))), (64, order.flip(0))):
        few = Target.prepare(net.model, net.x, net.y, slots)
        got = run_chain(few, chain, Examples(net.x[at], net.y[at], net.ids[at]), seed=0)
        assert [verdict.rank for verdict in got.verdicts] == [ranks[row] for row in at.tolist()]
        assert torch.equal(got.points, points[at])


def test_decisive_passes_do_not_depend_on_the_batch_but_wasted_ones_may(small: Small) -> None:
    x, y = small.x[:32], small.y[:32]
    targets = [Target.prepare(small.model, x, y, rows) for rows in (4, 16, 32)]
    examples = Examples(x, y, small.ids[:32])
    costs = [run_chain(target, chain_of("L2", 20), examples, seed=0).cost for target in targets]
    assert len({(cost.forwards, cost.backwards) for cost in costs}) == 1
    assert costs[0].wasted <= costs[2].wasted


@pytest.mark.cpu_only  # on a GPU further tries always begin early
def test_early_tries_change_nothing_but_waste(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tries of an example in flight at once, hits of several of them in one iteration included."""
    net = small.correct()
    target, chain = Target.prepare(net.model, net.x, net.y, 256), chain_of("Linf", 12)
    calm = run_chain(target, chain, Examples(net.x, net.y, net.ids), seed=0)
    monkeypatch.setattr(pool, "EARLY_ROWS", 256)
    monkeypatch.setattr(pool, "PATIENCE", 0)
    eager = run_chain(target, chain, Examples(net.x, net.y, net.ids), seed=0)
    assert eager.verdicts == calm.verdicts
    assert torch.equal(eager.points, calm.points)
    assert (eager.cost.forwards, eager.cost.backwards) == (calm.cost.forwards, calm.cost.backwards)
    assert eager.cost.wasted > calm.cost.wasted == 0


def test_a_breakable_example_costs_a_few_passes(small: Small) -> None:
    """At ten times the radius everything falls at once: the reference would make 1010 passes for each."""
    target = Target.prepare(small.model, small.x, small.y)
    chain = Chain("Linf", ThreatModel.parse("Linf", "0.6"), (AttackSpec.of("apgd-ce"), AttackSpec.of("apgd-t")))
    done = run_chain(target, chain, Examples(small.x, small.y, small.ids), seed=0)
    standing = len(small.correct().x)
    assert not any(not verdict.fooled for verdict in done.verdicts)
    assert done.cost.backwards + done.cost.wasted <= 5 * standing


def test_only_the_last_radius_of_l1_counts(small: Small) -> None:
    """Points at 3 eps fool at once; a hit there would lie outside the ball, and the judge would raise."""
    net = small.correct()
    target, chain = Target.prepare(net.model, net.x, net.y), chain_of("L1", 20)
    done = run_chain(target, chain, Examples(net.x, net.y, net.ids), seed=0)
    assert all(verdict.distance <= 0.9 + 1e-5 for verdict in done.verdicts)
    assert done.cost.backwards >= 12 * len(net.x)


def test_an_example_that_is_wrong_on_clean_is_fooled_without_an_attack(small: Small) -> None:
    y = small.y.clone()
    y[:5] = (small.logits[:5].argmax(1) + 1) % 10
    target = Target.prepare(small.model, small.x, y)
    done = run_chain(target, chain_of("Linf"), Examples(small.x, y, small.ids), seed=0)
    for verdict in done.verdicts[:5]:
        assert (verdict.fooled, verdict.attack, verdict.distance) == (True, "clean", 0.0)
    assert torch.equal(done.points[:5], small.x[:5])

"""On a linear net the boundary's distance is known in closed form: attacked from both sides of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.nets import Linear
from torch import Tensor

from transferbench import threats
from transferbench.attacks import Keys, build
from transferbench.attacks.source_attack import run_to_end
from transferbench.base import keyed_random
from transferbench.base.specifications import AttackSpec, Chain, Norm, ThreatModel
from transferbench.engine.chain import Target, run_chain
from transferbench.engine.verdicts import Examples

DUAL = {"Linf": 1, "L2": 2, "L1": float("inf")}


def linear_problem(classes: int, n: int = 24, d: int = 48) -> tuple[Linear, Tensor, Tensor]:
    """Images around .5 whose boundaries are so near that the box never matters."""
    keys = keyed_random.row_keys(keyed_random.stream("linear", classes), torch.arange(n))
    weight = keyed_random.normal(keyed_random.row_keys(1, torch.arange(classes)), (d,))
    x = 0.5 + 0.04 * keyed_random.normal(keys, (d,))
    model = Linear(weight, -weight @ torch.full((d,), 0.5))
    return model, x, model(x).argmax(1).detach()


def boundary_distance(model: Linear, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """[n]: min over the other classes of (z_y - z_j) / ||w_y - w_j|| in the dual norm."""
    logits, weight = model(x).detach(), model.weight.detach()
    gap = logits.gather(1, y[:, None]) - logits
    slope = (weight[y][:, None] - weight[None]).norm(p=DUAL[norm], dim=2)
    return (gap / slope).masked_fill(torch.nn.functional.one_hot(y, logits.shape[1]).bool(), float("inf")).amin(1)


CASES = [
    (AttackSpec.of(id, **params), norm, classes)  # type: ignore[arg-type]
    for id, params, norms, counts in [
        ("apgd-ce", {}, ("Linf", "L2", "L1"), (2, 3, 10)),
        ("apgd-t", {}, ("Linf", "L2", "L1"), (2, 3, 5, 10)),
        ("apgd-dlr", {}, ("Linf", "L2", "L1"), (3, 10)),
        ("pgd", {"k": 40, "step": 0.1}, ("Linf", "L2"), (2, 10)),
        ("pgd", {"k": 40, "step": 0.1, "loss": "cw", "kappa": 50.0}, ("Linf",), (2, 10)),
        ("fgsm", {}, ("Linf",), (2,)),
    ]
    for norm in norms
    for classes in counts
]


@pytest.mark.parametrize(
    ("spec", "norm", "classes"),
    [
        pytest.param(*case, marks=pytest.mark.slow if case[2] in (3, 5) or case[1:] == ("L1", 10) else ())
        for case in CASES
    ],
    ids=str,
)
def test_every_attack_wins_outside_the_boundary_and_never_inside(spec: AttackSpec, norm: Norm, classes: int) -> None:
    model, x, y = linear_problem(classes)
    distances = boundary_distance(model, x, y, norm)
    target = Target.prepare(model, x, y)
    # Among ten classes an untargeted loss may climb towards a farther boundary than the nearest one: there
    # only the inner side is certain. The targeted attack tries every class and must win.
    sides = [(0.8, False)] if classes == 10 and spec.id != "apgd-t" else [(1.25, True), (0.8, False)]
    for share, fooled in sides:
        # The nearest ones are left out: there the distance itself drowns in the rounding of a pixel.
        for row in distances.argsort(descending=True)[:8].tolist():
            eps = repr(share * float(distances[row]))
            chain = Chain("one", ThreatModel.parse(norm, eps), (spec,))
            at = slice(row, row + 1)
            verdict = run_chain(target, chain, Examples(x[at], y[at], torch.tensor([row])), seed=0).verdicts[0]
            assert verdict.fooled is fooled, f"{share} x the boundary distance, row {row}"
            if fooled:
                assert (
                    0.99 * float(distances[row])
                    <= verdict.distance
                    <= float(eps) + threats.build(chain.threat).tolerance(48)
                )


@pytest.mark.parametrize("n_iter", [1, 2, 3, 4, 7])
def test_a_few_iterations_end_inside_the_ball_too(n_iter: int) -> None:
    """Few iterations leave none for L1's last radius: its start is still evaluated, and nothing else counts."""
    model, x, y = linear_problem(10)
    target = Target.prepare(model, x, y)
    chain = Chain("L1", ThreatModel.parse("L1", "0.8"), (AttackSpec.of("apgd-ce", n_iter=n_iter),))
    done = run_chain(target, chain, Examples(x, y, torch.arange(len(x))), seed=0)
    assert any(verdict.fooled for verdict in done.verdicts)
    assert all(verdict.distance <= 0.8 + 1e-5 for verdict in done.verdicts)


def test_the_pretrained_attack_ends_at_the_sign_of_its_neuron() -> None:
    """With linear features and m far away every step goes up the neuron's weights: the end point is known."""
    keys = keyed_random.row_keys(9, torch.arange(6))
    x = 0.3 + 0.4 * keyed_random.uniform(keys, (48,))
    weight = keyed_random.normal(keyed_random.row_keys(10, torch.arange(16)), (48,))
    threat = ThreatModel.parse("Linf", "0.05")
    attack = build(AttackSpec.of("pretrained-neuron", neurons=3), threat, 10)
    source: Any = lambda z, *names: dict.fromkeys(names, z @ weight.T)  # noqa: E731 - a source is called
    for neuron in range(3):
        state = attack.start(x, source, Keys(keys, torch.full_like(keys, neuron)))
        found = run_to_end(attack, source, state)
        assert torch.allclose(found, x + 0.05 * weight[neuron].sign(), atol=1e-6)


def test_random_signs_lie_on_the_corners_of_the_ball() -> None:
    attack = build(AttackSpec.of("random-sign", draws=2), ThreatModel.parse("Linf", "0.1"), 10)
    keys = keyed_random.row_keys(4, torch.arange(4))
    x = torch.full((4, 100), 0.5)
    found = attack.start(x, None, Keys(keys, torch.zeros_like(keys)))["x"]
    assert torch.allclose((found - x).abs(), torch.full_like(x, 0.1))
    assert 0.35 < float((found > x).float().mean()) < 0.65

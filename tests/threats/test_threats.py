"""The contract of every threat, and the bits of its arithmetic against formulas written out here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transferbench import attacks, threats
from transferbench.attacks import Keys
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.ids import RENOFEATION
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.threats import BoundedThreat, L1Ball, L2Ball, LinfBall, LpBall, RenofeationBox
from transferbench.threats.projections import l1_correction

KINDS: tuple[type[BoundedThreat], ...] = (LinfBall, L2Ball, L1Ball, RenofeationBox)
BALLS: tuple[type[LpBall], ...] = (LinfBall, L2Ball, L1Ball)
BOXES: tuple[type[BoundedThreat], ...] = (LinfBall, RenofeationBox)
RADII = {"Linf": 0.5, "L2": 3.0, "L1": 6.0, RENOFEATION: 1.0}
"""The largest radii tried, for images of 48 entries."""

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
balls = pytest.mark.parametrize("kind", BALLS, ids=lambda kind: kind.name)
boxes = pytest.mark.parametrize("kind", BOXES, ids=lambda kind: kind.name)
shares = st.one_of(st.sampled_from([1 / 255, 0.5, 1.0]), st.floats(0.004, 1))


def images(seed: int, n: int = 6) -> Tensor:
    """[n, 3, 4, 4]: noise, among it a white, a black and a nearly white image and one of zeros and ones."""
    x = keyed_random.uniform(keys_of(seed, n), (3, 4, 4))
    x[0], x[1], x[2], x[3] = 1.0, 0.0, 0.9 + 0.1 * x[2], x[3].round()
    return x


def keys_of(seed: int, n: int = 6) -> Tensor:
    return keyed_random.row_keys(keyed_random.stream("threats", seed), torch.arange(n))


def threat_of(kind: type[BoundedThreat], share: float) -> BoundedThreat:
    return kind.parse(repr(share * RADII[kind.name]))


def admitted(threat: BoundedThreat, x: Tensor, z: Tensor) -> Tensor:
    """bool [B]: the points that meet every condition."""
    return torch.stack([met for met, _ in threat.admissible(x, z).conditions]).all(0)


@kinds
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=shares, scale=st.floats(0.001, 5))
def test_projections_and_random_starts_are_admissible(
    kind: type[BoundedThreat], seed: int, share: float, scale: float
) -> None:
    threat, x, keys = threat_of(kind, share), images(seed), keys_of(seed + 1)
    far = x + scale * keyed_random.normal(keys, (3, 4, 4))
    projected = threat.project(x, far)
    assert admitted(threat, x, projected).all()
    again = threat.project(x, projected)
    assert admitted(threat, x, again).all()
    assert float(threat.distance(projected, again).max()) <= 4 * threat.tolerance(48), "idempotent up to rounding"
    start = threat.random_start(x, keys)
    assert admitted(threat, x, start).all()
    assert not torch.equal(start, threat.random_start(x, keys + 1))


@kinds
def test_an_image_that_is_admissible_stays_where_it_is(kind: type[BoundedThreat]) -> None:
    threat, x = threat_of(kind, 0.1), 0.25 + 0.5 * images(2)
    near = x + 0.0001 * keyed_random.normal(keys_of(3), (3, 4, 4))
    assert torch.allclose(threat.project(x, near), near, atol=1e-6)


@kinds
def test_rows_do_not_depend_on_their_batch(kind: type[BoundedThreat]) -> None:
    threat, x, keys = threat_of(kind, 0.3), images(4), keys_of(4)
    far = x + keyed_random.normal(keys + 1, (3, 4, 4))
    whole = threat.project(x, far), threat.random_start(x, keys), threat.distance(x, far)
    for rows in (slice(0, 1), slice(1, 6)):
        part = threat.project(x[rows], far[rows]), threat.random_start(x[rows], keys[rows])
        assert torch.equal(part[0], whole[0][rows])
        assert torch.equal(part[1], whole[1][rows])
        assert torch.equal(threat.distance(x[rows], far[rows]), whole[2][rows])


@kinds
@given(seed=st.integers(0, 10_000))
def test_distances_are_those_of_numpy_in_float64(kind: type[BoundedThreat], seed: int) -> None:
    x, z = images(seed), images(seed + 1)
    apart = np.abs(z.numpy().astype(np.float64) - x.numpy().astype(np.float64)).reshape(len(x), -1)
    order = {"L2": 2, "L1": 1}.get(kind.name, np.inf)
    distance = threat_of(kind, 0.1).distance(x, z)
    assert distance.dtype == torch.float64
    assert np.allclose(distance.numpy(), np.linalg.norm(apart, order, axis=1), rtol=1e-14)


def test_distances_are_exact() -> None:
    x, z = torch.zeros(1, 3), torch.tensor([[0.5, -0.25, 0.0]])
    distances = [float(threat_of(kind, 0.1).distance(x, z)) for kind in KINDS]
    assert distances == [0.5, pytest.approx(0.3125**0.5, abs=1e-16), 0.75, 0.5]


@kinds
def test_the_first_condition_that_fails_names_the_fault(kind: type[BoundedThreat]) -> None:
    threat, x = threat_of(kind, 0.01), 0.5 + 0 * images(0)
    bad = x.clone()
    bad[1, 0, 0, 0], bad[2, 0, 0, 0], bad[3] = float("nan"), -2.0, 0.8
    faults = [
        next((fault for met, fault in threat.admissible(x, bad).conditions if not met[row]), "") for row in range(6)
    ]
    outside = f"outside the ball {threat}"
    assert faults == ["", "not finite", outside if kind is RenofeationBox else "outside [0,1]", outside, "", ""]


def test_the_tolerance_is_the_protocols() -> None:
    assert [threat_of(kind, 0.1).tolerance(4) for kind in KINDS] == [
        2.0**-23,
        1e-6 + 2.0**-24 * 2,
        1e-6 + 2.0**-24 * 4,
        2.0**-22,
    ]


def test_a_specification_builds_one_object_and_an_unknown_name_is_refused() -> None:
    spec = ThreatModel.parse("Linf", "8/255")
    assert threats.build(spec) is threats.build(ThreatModel.parse("Linf", "8/255"))
    assert threats.build(spec) == LinfBall.parse("8/255")
    assert str(threats.build(spec)) == str(spec) == "Linf:8/255"
    with pytest.raises(InputError, match=r"unknown threat 'fog' \(there are: L1, L2, Linf, renofeation\)"):
        threats.build(ThreatModel("fog", spec.eps))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="over 1"):
        LinfBall.parse("8")


def test_an_attack_names_the_threats_that_it_is_defined_in() -> None:
    def refusal(id: str, norm: str) -> str:
        with pytest.raises(InputError) as caught:
            attacks.build(AttackSpec.of(id), ThreatModel.parse(norm, "0.1"), 10)
        return str(caught.value)

    assert refusal("fgsm", "L2") == "attack fgsm is defined in Linf only, not in L2"
    assert refusal("random-sign", "L1") == "attack random-sign is defined in Linf and renofeation only, not in L1"
    assert refusal("apgd-ce", RENOFEATION) == "attack apgd-ce is defined in Linf, L2 and L1 only, not in renofeation"


@balls
@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.6))
def test_interior_offsets_are_inside_and_dual_to_their_direction(kind: type[LpBall], seed: int, share: float) -> None:
    ball, x = kind.parse(repr(share * RADII[kind.name])), images(seed)
    offset = ball.interior_offset(x, keys_of(seed), 0.9)
    assert float((x + offset).min()) >= 0
    assert float((x + offset).max()) <= 1
    assert torch.allclose(ball.distance(x, x + offset), torch.tensor(0.9 * ball.radius).double(), rtol=1e-4)
    direction = ball.dual_direction(offset)
    assert torch.allclose((direction * offset.flatten(1)).sum(1), torch.ones(6), rtol=1e-4)
    dual = direction.norm({"Linf": 1, "L2": 2, "L1": float("inf")}[kind.name], dim=1)
    assert torch.allclose(dual, torch.tensor(1 / (0.9 * ball.radius)), rtol=1e-4)


@pytest.mark.parametrize("ball", [LinfBall.parse("0.6"), L2Ball.parse("6"), L1Ball.parse("30")], ids=str)
def test_no_interior_offset_beyond_half_the_range(ball: LpBall) -> None:
    with pytest.raises(InputError, match=rf"no point at 0\.9 x {ball} fits into \[0,1\]"):
        ball.interior_offset(images(0), keys_of(0), 0.9)


# The arithmetic, written out: results are pinned to the order of these operations.

MEAN, STD = (torch.tensor(part).view(1, 3, 1, 1) for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def box(kind: type[BoundedThreat], x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    if kind is LinfBall:
        return (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    low, high = MEAN - 2.2 * STD, MEAN + 2.2 * STD
    return (x - eps * STD).clamp(low, high), (x + eps * STD).clamp(low, high)


def project_l2(x: Tensor, z: Tensor, eps: float) -> Tensor:
    delta = z - x
    length = delta.square().flatten(1).sum(-1).sqrt().view(-1, 1, 1, 1)
    return (delta / (length + 1e-12) * length.clamp(max=eps) + x).clamp(0, 1)


def project_l1(x: Tensor, z: Tensor, eps: float) -> Tensor:
    delta = z - x
    return (x + delta + l1_correction(x, delta, eps)).clamp(0, 1)


@kinds
@given(seed=st.integers(0, 10_000), share=shares)
def test_projections_have_the_bits_of_the_formulas(kind: type[BoundedThreat], seed: int, share: float) -> None:
    threat, x = threat_of(kind, share), images(seed)
    far, eps = x + keyed_random.normal(keys_of(seed + 1), (3, 4, 4)), threat.radius
    by_name: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"L2": project_l2, "L1": project_l1}
    wanted = by_name[kind.name](x, far, eps) if kind.name in by_name else torch.clamp(far, *box(kind, x, eps))
    # L1 projects once more the rows whose rounding is inadmissible.
    once = admitted(threat, x, wanted)
    assert torch.equal(threat.project(x, far)[once], wanted[once])
    assert once.any()


@balls
@given(seed=st.integers(0, 10_000), share=shares)
def test_random_starts_have_the_bits_of_autoattacks_formulas(kind: type[LpBall], seed: int, share: float) -> None:
    threat, x, keys = threat_of(kind, share), images(seed), keys_of(seed)
    eps = threat.radius
    if kind is LinfBall:
        noise = 2 * keyed_random.uniform(keys, (3, 4, 4)) - 1
        wanted = x + eps * (noise / (noise.abs().flatten(1).amax(1).view(-1, 1, 1, 1) + 1e-12))
    else:
        noise = keyed_random.normal(keys, (3, 4, 4))
        length = noise.square().flatten(1).sum(-1).sqrt().view(-1, 1, 1, 1)
        wanted = x + (eps * (noise / (length + 1e-12)) if kind is L2Ball else noise)
        if kind is L1Ball:
            wanted = wanted + l1_correction(x, noise, eps)
    assert torch.equal(threat.random_start(x, keys), wanted.clamp(0, 1))


@boxes
@given(seed=st.integers(0, 10_000), share=shares)
def test_attacks_start_with_the_bits_of_their_formulas(kind: type[BoundedThreat], seed: int, share: float) -> None:
    """Random signs and Madry's uniform start, clamped to [0,1] alone, equal the projection of the same displacement."""
    threat, x, keys = threat_of(kind, share), images(seed), keys_of(seed)
    spec = ThreatModel(threat.name, threat.eps)
    signs, noise = keyed_random.signs(keys, (3, 4, 4)), 2 * keyed_random.uniform(keys, (3, 4, 4)) - 1
    for id, drawn in (("random-sign", signs), ("pretrained-neuron", noise), ("pgd", noise)):
        if kind is LinfBall:
            wanted = (x + threat.radius * drawn).clamp(0, 1)
        elif id == "pgd":
            continue
        else:
            wanted = torch.clamp(x + threat.radius * STD * drawn, *box(kind, x, threat.radius))
        attack: Any = attacks.build(AttackSpec.of(id), spec, 10)
        y = torch.zeros(6, dtype=torch.int64)
        held: Any = (y, x.new_empty(6, 0)) if attack.sees == "victim" else (None,)
        assert torch.equal(attack.start(x, *held, Keys(keys, y))["x"], wanted)


GOLDEN = {
    "Linf": (
        [0.28527694940567017, 0.05756648629903793, 0.22184762358665466, 0.2215994894504547],
        [0.22122904658317566, 0.12826314568519592, 0.36841997504234314, 0.32186049222946167],
        2.0372446179389954,
    ),
    "L2": (
        [0.5206096172332764, 0.33710598945617676, 0.4240494966506958, 0.46851247549057007],
        [0.10108006000518799, 0.1311425119638443, 0.32636168599128723, 0.2761872708797455],
        3.3639307629067403,
    ),
    "L1": (
        [0.6996966600418091, 0.5559262037277222, 0.31722819805145264, 0.653601884841919],
        [0.0, 0.13164520263671875, 0.3218746781349182, 0.2682133913040161],
        9.061961591243744,
    ),
    RENOFEATION: (
        [0.3130413293838501, 0.11477455496788025, 0.25781360268592834, 0.25759756565093994],
        [0.29832905530929565, 0.12826314568519592, 0.29131996631622314, 0.29111337661743164],
        2.0372446179389954,
    ),
}
"""By threat: the first entries of a random start and of a projection, and a distance, computed before threats were
objects."""


@kinds
def test_numbers_are_those_of_the_first_edition(kind: type[BoundedThreat]) -> None:
    keys = keyed_random.row_keys(11, torch.arange(2))
    x = keyed_random.uniform(keys, (3, 2, 2))
    far = x + keyed_random.normal(keys + 1, (3, 2, 2))
    threat = kind.parse({"Linf": "0.1", "L2": "0.5", "L1": "1.5", RENOFEATION: "0.1"}[kind.name])
    start, projected, distance = GOLDEN[kind.name]
    # A processor's order of summation may move the last bits of a norm, not those of a box.
    close: Callable[[list[float]], Any] = list if kind in BOXES else lambda values: pytest.approx(values, abs=2e-7)
    assert threat.random_start(x, keys)[1].flatten()[:4].tolist() == close(start)
    assert threat.project(x, far)[1].flatten()[:4].tolist() == close(projected)
    assert float(threat.distance(x, far)[1]) == pytest.approx(distance, rel=1e-12)

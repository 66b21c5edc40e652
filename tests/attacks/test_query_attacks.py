"""Query attacks row by row: closed forms on linear networks, the schedule of the reference, the ball and the box."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from pyautoattack.square import SquareAttack
from support.nets import Linear
from torch import Tensor

from transferbench import attacks
from transferbench.attacks import Keys, RowState
from transferbench.attacks.query_attack import QueryAttack
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel

EPS = 0.1
LINF = ThreatModel.parse("Linf", "0.1")


class LinearSource:
    """A linear network as a source."""

    def __init__(self, weight: Tensor) -> None:
        self.network = Linear(weight, torch.zeros(len(weight)))

    def __call__(self, x: Tensor, *names: str, changes: Mapping[str, Any] = {}) -> dict[str, Tensor]:
        return {"logits": self.network(x)}

    def layers(self, *names: str) -> tuple[str, ...]:
        return names


NO_SOURCE = LinearSource(torch.zeros(2, 4))


def keys(n: int) -> Keys:
    return Keys(torch.arange(100, 100 + n) ** 3, torch.zeros(n, dtype=torch.int64))


def built(id: str, **params: Any) -> QueryAttack:
    attack: QueryAttack = attacks.build(AttackSpec.of(id, **params), LINF, 10)
    return attack


def begun(attack: QueryAttack, x: Tensor, begin: Tensor | None = None, source: LinearSource = NO_SOURCE) -> RowState:
    return attack.start(x, torch.zeros(len(x), dtype=torch.int64), source, keys(len(x)), x if begin is None else begin)


def test_simba_steps_along_the_sign_of_a_linear_sources_weights() -> None:
    """With one logit the gradient of <w, f> is w times the weights: two queries decide which side raises the margin."""
    weight = torch.tensor([[0.3, -2.0, 0.01, 5.0]])
    x, attack, step = torch.full((8, 1, 2, 2), 0.5), built("simba-ods", step=0.25), 0.25 * EPS
    source = LinearSource(weight)
    state = begun(attack, x, source=source)
    victim = torch.tensor([1.0, 1.0, -3.0, 4.5])
    # Towards the weights' signs, +, -, + and +: 1 - 1 - 3 + 4.5.
    gain = 1.5 * step

    def margins(points: Tensor) -> Tensor:
        return points.flatten(1) @ victim - 3

    first = attack.propose(state, source)
    assert torch.equal(first, x), "the first query is the start"
    attack.learn(state, first, margins(first))
    clean = margins(x)
    second = attack.propose(state, source)
    sides = (second - x).flatten(1) / step
    assert torch.allclose(sides.abs(), torch.ones(8, 4), atol=1e-5)
    assert torch.equal(sides.sign(), sides.sign()[:, :1] * weight.sign()), "weights' signs, or all of them turned"
    attack.learn(state, second, margins(second))
    right = sides[:, 0] > 0
    assert 0 < int(right.sum()) < 8, "rows draw their own w"
    assert torch.allclose(state["margin"], torch.where(right, clean + gain, clean), atol=1e-6)
    third = attack.propose(state, source)
    # A row that has moved draws again; one that has not tries the other side of the same direction.
    assert torch.allclose(third[~right], (x + step * weight.sign().view(1, 2, 2))[~right], atol=1e-6)
    attack.learn(state, third, margins(third))
    assert torch.allclose(state["margin"][~right], clean[~right] + gain, atol=1e-6)
    assert state["query"].tolist() == [3] * 8


def test_simbas_directions_are_combinations_of_all_of_the_sources_outputs() -> None:
    """Of two outputs that look at one pixel each, all four pairs of signs come up; the third pixel never moves."""
    weight = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 7.0, 0.0, 0.0]])
    x, attack = torch.full((64, 1, 2, 2), 0.5), built("simba-ods")
    source = LinearSource(weight)
    state = begun(attack, x, source=source)
    attack.learn(state, attack.propose(state, source), torch.zeros(64))
    moved = (attack.propose(state, source) - x).flatten(1).sign()
    pairs = {tuple(pair) for pair in moved[:, :2].tolist()}
    assert pairs == {(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0)}
    assert torch.equal(moved[:, 2:], torch.zeros(64, 2))
    before = moved
    attack.learn(state, x, torch.full((64,), 1.0))
    assert not torch.equal((attack.propose(state, source) - x).flatten(1).sign(), before), "drawn anew"


def test_the_control_of_simba_never_asks_the_source() -> None:
    def refuses(*_: object) -> Any:
        raise AssertionError

    attack, x = built("simba-ods", directions="random", step=0.08), torch.full((4, 1, 8, 8), 0.5)
    state = begun(attack, x)
    attack.learn(state, x, torch.zeros(4))
    moved = (attack.propose(state, refuses) - x) / (0.08 * EPS)  # type: ignore[arg-type]
    assert torch.allclose(moved.abs(), torch.ones_like(x), atol=1e-4)
    assert -0.5 < float(moved.mean()) < 0.5


@pytest.mark.parametrize("queries", [10, 100, 500, 5000])
def test_squares_shrink_as_the_references(queries: int) -> None:
    reference = SquareAttack(lambda x: x, eps=EPS, n_queries=queries, p_init=0.05, device="cpu")
    attack = built("square-start", queries=queries)
    for height, width in ((8, 8), (32, 32), (224, 160)):
        expected = [max(round(math.sqrt(reference.p_selection(i) * height * width)), 1) for i in range(queries)]
        sides = attack.sides(torch.arange(queries), height, width)  # type: ignore[attr-defined]
        assert sides.tolist() == expected


def test_a_square_is_one_sign_per_channel_around_the_clean_image() -> None:
    torch.manual_seed(0)
    x = torch.rand(400, 3, 9, 7)
    # p .25 of 63 pixels: a side of 4.
    attack = built("square-start", p_init=0.25)
    begin = (x + EPS * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    state = begun(attack, x, begin)
    first = attack.propose(state, NO_SOURCE)
    assert torch.equal(first, begin)
    attack.learn(state, first, torch.zeros(400))
    points = attack.propose(state, NO_SOURCE)
    places = set()
    for row in range(400):
        changed = (points[row] != begin[row]).any(0).nonzero()
        top, left = changed.amin(0).tolist()
        places.add((top, left))
        inside = torch.zeros(9, 7, dtype=torch.bool)
        inside[top : top + 4, left : left + 4] = True
        assert torch.equal(points[row][:, ~inside], begin[row][:, ~inside])
        for channel in range(3):
            up = (x[row, channel] + EPS).clamp(max=1)[inside]
            down = (x[row, channel] - EPS).clamp(min=0)[inside]
            given = points[row, channel][inside]
            assert torch.allclose(given, up, atol=1e-7) or torch.allclose(given, down, atol=1e-7)
    assert places == {(top, left) for top in range(6) for left in range(4)}, "every place, the last ones too"


def test_stripes_are_one_sign_per_column_and_channel() -> None:
    x = torch.full((50, 3, 6, 5), 0.5)
    attack = built("square-start", start="stripes")
    assert attack.begins == "image"
    point = attack.propose(begun(attack, x), NO_SOURCE)
    signs = (point - x) / EPS
    assert torch.allclose(signs.abs(), torch.ones_like(x), atol=1e-5)
    assert torch.equal(signs, signs[:, :, :1].expand_as(signs))
    assert -0.2 < float(signs.mean()) < 0.2


@pytest.mark.parametrize(
    "spec",
    [
        AttackSpec.of("simba-ods"),
        AttackSpec.of("simba-ods", directions="random", step=0.1),
        AttackSpec.of("square-start"),
        AttackSpec.of("square-start", start="stripes"),
    ],
)
def test_every_point_is_in_the_ball_and_the_box_and_only_better_ones_are_kept(spec: AttackSpec) -> None:
    torch.manual_seed(1)
    x = torch.rand(16, 1, 5, 5).round(decimals=1)
    source = LinearSource(torch.randn(7, 25))
    attack: QueryAttack = attacks.build(spec, LINF, 10)
    begin = (x + EPS * torch.randn_like(x).sign()).clamp(0, 1) if attack.begins == "crafted" else x
    state = begun(attack, x, begin, source)
    best = torch.full((16,), -float("inf"))
    for query in range(40):
        points = attack.propose(state, source)
        far = (points.double() - x.double()).abs().flatten(1).amax(1)
        assert float(far.max()) <= EPS + 2**-23
        assert float(points.min()) >= 0
        assert float(points.max()) <= 1
        margins = torch.sin(40 * points.flatten(1).sum(1))
        attack.learn(state, points, margins)
        rose = margins > best
        assert bool(rose.all()) or query > 0
        assert torch.equal(state["x"][rose], points[rose])
        best = torch.maximum(best, margins)
        assert torch.equal(state["margin"], best)
    assert float(best.mean()) > 0.75, "it has moved"


@pytest.mark.parametrize(
    ("id", "params", "message"),
    [
        ("simba-ods", {"queries": 0}, "queries=0 must be at least 1"),
        ("square-start", {"queries": -3}, "queries=-3 must be at least 1"),
        ("simba-ods", {"step": 0.0}, "step=0.0 must be above 0"),
        ("simba-ods", {"directions": "up"}, "directions='up' is not one of source, random"),
        ("square-start", {"start": "clean"}, "start='clean' is not one of crafted, stripes"),
        ("square-start", {"p_init": 1.5}, "at most 1"),
    ],
)
def test_bad_values_end_in_one_line(id: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        built(id, **params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("id", ["simba-ods", "square-start"])
def test_they_are_defined_in_linf_and_are_no_part_of_a_chain(id: str) -> None:
    with pytest.raises(InputError, match="defined in Linf only"):
        attacks.build(AttackSpec.of(id), ThreatModel.parse("L2", "0.5"), 10)
    with pytest.raises(InputError, match=f"{id} holds a source and queries the victim"):
        attacks.build_chain(Chain("Linf", LINF, (AttackSpec.of("apgd-ce"), AttackSpec.of(id))), 10)

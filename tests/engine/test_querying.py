"""The loop of query attacks: what is asked, counted and reported, whatever the batch."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pyautoattack.square import SquareAttack
from support.nets import Linear, Small
from torch import Tensor, nn

from transferbench import attacks
from transferbench.attacks import RowState
from transferbench.attacks.source_attack import SourceNetwork
from transferbench.attacks.square_start import SquareStart
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint, State
from transferbench.base.errors import FaultError
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.engine.judge import Judge, Judgement
from transferbench.engine.memory import Rows
from transferbench.engine.querying import PaddedSource, Querying, QueryOutcome
from transferbench.engine.source_model import SourceModel
from transferbench.engine.verdicts import Examples
from transferbench.models import victims
from transferbench.models.features import Layers
from transferbench.threats import LinfBall

LINF = ThreatModel.parse("Linf", "0.15")
SPECS = (
    AttackSpec.of("simba-ods", queries=40, step=0.25),
    AttackSpec.of("simba-ods", queries=40, directions="random"),
    AttackSpec.of("square-start", queries=40),
    AttackSpec.of("square-start", queries=40, start="stripes"),
)


class RecordingJudge(Judge):
    """Remembers the points of every query by their example's id."""

    def __init__(self, model: nn.Module, batch_size: int = 256) -> None:
        super().__init__(model, batch_size)
        self.queried: list[tuple[int, Tensor]] = []

    def logits(self, x: Tensor, ids: Tensor | None = None, stream: object = 0) -> Tensor:
        if str(stream).startswith("query"):
            assert ids is not None
            self.queried += zip(ids.tolist(), x.clone(), strict=True)
        return super().logits(x, ids, stream)


@pytest.fixture(scope="module")
def source(small: Small) -> SourceModel:
    """The embedded letters network. It need not have the victim's classes."""
    public = victims.load("letters-madry")
    return SourceModel.prepare(public.model, public.layers, small.x[:16].cpu())


@pytest.fixture(scope="module")
def crafted(small: Small) -> Tensor:
    """A step along the sign of the victim's own gradient: some of the points fool already."""
    x = small.x.clone().requires_grad_(True)
    gradient = torch.autograd.grad(F.cross_entropy(small.model(x), small.y, reduction="sum"), x)[0]
    return (small.x + 0.15 * gradient.sign()).clamp(0, 1)


def run(
    judge: Judge,
    source: SourceNetwork,
    spec: AttackSpec,
    given: Small,
    crafted: Tensor,
    most: int = 64,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> QueryOutcome:
    attack = attacks.build(spec, LINF, 10)
    querying = Querying(judge, source, attack, LINF, 3, Rows(most, 16), checkpoint)
    begin = crafted if attack.begins == "crafted" else given.x
    return querying.run(Examples(given.x, given.y, given.ids), begin)


def predictions(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_what_is_reported_is_what_was_asked(
    small: Small, source: SourceModel, crafted: Tensor, spec: AttackSpec
) -> None:
    judge = RecordingJudge(small.model)
    assert (source(small.x, "logits")["logits"].shape[1], small.logits.shape[1]) == (26, 10)
    done = run(judge, source, spec, small, crafted)
    asked = Counter(id for id, _ in judge.queried)
    clean = predictions(small.model, small.x)
    labels = dict(zip(small.ids.tolist(), small.y.tolist(), strict=True))
    answers = predictions(small.model, torch.stack([point for _, point in judge.queried])).tolist()
    wrong: dict[int, list[bool]] = {id: [] for id in labels}
    for (id, _), answer in zip(judge.queried, answers, strict=True):
        wrong[id].append(answer != labels[id])
    last = dict(judge.queried)
    for place, (id, number) in enumerate(zip(small.ids.tolist(), done.queries, strict=True)):
        assert asked[id] == {0: 0, -1: 40}.get(number, number)
        assert bool(clean[place] == small.y[place]) == (number != 0)
        assert wrong[id] == ([False] * (number - 1) + [True] if number > 0 else [False] * asked[id])
        if number > 0:
            assert torch.equal(done.points[place], last[id]), "the first that fools is the last that is asked"
    images = dict(zip(small.ids.tolist(), small.x.double().numpy(), strict=True))
    for id, point in judge.queried:
        assert np.abs(point.double().numpy() - images[id]).max() <= 0.15 + 2**-23
        assert float(point.min()) >= 0
        assert float(point.max()) <= 1
    fooled = sum(number > 0 for number in done.queries)
    assert 0 < fooled < len(small.x), "the budget and the radius are between trivial and hopeless"
    assert done.cost.checks == len(small.x) + len(judge.queried) + fooled == judge.checks
    if spec == SPECS[0]:
        assert 0 < done.cost.backwards == done.cost.forwards < len(judge.queried)
    else:
        assert (done.cost.forwards, done.cost.backwards) == (0, 0)


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[2]], ids=str)
def test_a_row_depends_neither_on_the_batch_nor_on_its_neighbours(
    small: Small, source: SourceModel, crafted: Tensor, spec: AttackSpec
) -> None:
    whole = run(Judge(small.model), source, spec, small, crafted)
    again = run(Judge(small.model, 19), source, spec, small, crafted, 23)
    assert again.queries == whole.queries
    assert again.cost == whole.cost
    assert torch.equal(again.points, whole.points)
    part = Small(small.model, small.x[7:20], small.y[7:20], small.ids[7:20])
    alone = run(Judge(small.model), source, spec, part, crafted[7:20])
    assert alone.queries == whole.queries[7:20]
    assert torch.equal(alone.points, whole.points[7:20])


class _StoppedError(Exception):
    pass


class Interrupted:
    """Keeps a copy of every `every`-th state, and then stops the work."""

    def __init__(self, every: int) -> None:
        self.every, self.offers, self.state = every, 0, None

    def load(self) -> State | None:
        return copy.deepcopy(self.state)

    def offer(self, state: Callable[[], State]) -> None:
        self.offers += 1
        if self.offers % self.every == 0:
            self.save(state())
            raise _StoppedError

    def save(self, state: State) -> None:
        self.state: Any = copy.deepcopy(state)


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[2]], ids=str)
def test_continued_from_checkpoints_is_undisturbed(
    small: Small, source: SourceModel, crafted: Tensor, spec: AttackSpec
) -> None:
    whole = run(Judge(small.model), source, spec, small, crafted, 16)
    checkpoint, stops = Interrupted(29), 0
    while True:
        try:
            again = run(Judge(small.model), source, spec, small, crafted, 16, checkpoint)
            break
        except _StoppedError:
            stops += 1
    assert stops >= 2
    assert again.queries == whole.queries
    assert again.cost == whole.cost
    assert torch.equal(again.points, whole.points)


def test_one_query_of_square_start_is_the_transfer_rate(small: Small, source: SourceModel, crafted: Tensor) -> None:
    right = predictions(small.model, small.x) == small.y
    flipped = right & (predictions(small.model, crafted) != small.y)
    assert 3 < int(flipped.sum()) < int(right.sum())
    done = run(Judge(small.model), source, SPECS[2], small, crafted)
    assert [number == 1 for number in done.queries] == flipped.tolist()
    only = run(Judge(small.model), source, AttackSpec.of("square-start", queries=1), small, crafted)
    assert [number == 1 for number in only.queries] == flipped.tolist()
    assert set(only.queries) == {1, 0, -1} if not bool(right.all()) else {1, -1}


class EveryPlace(SquareAttack):  # type: ignore[misc]
    """The reference, whose squares also reach the last row and column."""

    def random_int(self, low: int = 0, high: int = 1, shape: Any = (1,)) -> Tensor:
        return super().random_int(low, high + 1, shape)


def test_square_from_stripes_is_as_strong_as_the_references(small: Small, source: SourceModel) -> None:
    given = small.correct()
    reference = EveryPlace(given.model, eps=0.15, n_queries=499, p_init=0.05, device="cpu", seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = int((predictions(given.model, reference.perturb(given.x, given.y)) == given.y).sum())
    ours = run(Judge(given.model), source, AttackSpec.of("square-start", start="stripes"), given, given.x).queries
    assert 8 < theirs < len(given.x) - 8
    assert abs(ours.count(-1) - theirs) <= 4


def test_a_linear_victim_falls_after_the_steps_that_its_margin_needs() -> None:
    """One output of the source, aligned with nothing: each accepted step raises the margin by |<v, sign(u)>| of its
    size, and each costs one query or two."""
    torch.manual_seed(2)
    u, v, x = torch.randn(1, 16), torch.randn(16), torch.full((40, 1, 4, 4), 0.5)
    gain = float((v * u[0].sign()).sum())
    # A step moves every pixel by .08 of eps, .15: the margin is 5.4 steps away.
    bias = torch.tensor([0.5 * float(v.sum()) + 5.4 * 0.012 * abs(gain), 0.0])
    victim = Linear(torch.stack([torch.zeros(16), v]), bias)
    public = SourceModel(Linear(u, torch.zeros(1)), Layers((), ""))
    given = Small(victim, x, torch.zeros(40, dtype=torch.int64), torch.arange(40))
    done = run(Judge(victim), public, AttackSpec.of("simba-ods", queries=40, step=0.08), given, x)
    # The start, six steps forward, and what the wrong side cost in between.
    assert min(done.queries) >= 7
    assert max(done.queries) <= 13
    assert len(set(done.queries)) > 2
    end = 0.5 + 6 * 0.012 * u.sign().view(1, 4, 4) * (1 if gain > 0 else -1)
    assert torch.allclose(done.points, end.expand(40, 1, 4, 4), atol=1e-6)


def test_the_source_is_asked_in_full_batches_and_each_row_is_counted(small: Small, source: SourceModel) -> None:
    sizes = []

    def recorded(x: Tensor, *names: str, changes: object = None) -> dict[str, Tensor]:
        sizes.append(len(x))
        return source(x, *names)

    padded = PaddedSource(recorded, 16)  # type: ignore[arg-type]
    gradients = []
    for network in (source, padded):
        x = small.x[:20].clone().requires_grad_(True)
        parts = [network(part, "logits")["logits"][:, 3].sum() for part in x.split([3, 17])]
        gradients.append(torch.autograd.grad(sum(parts), x)[0])  # type: ignore[arg-type]
    assert torch.allclose(*gradients, atol=1e-5)
    padded(small.x[:2], "logits")
    assert sizes == [16, 17, 16]
    assert (padded.forwards, padded.backwards) == (22, 20)


def test_a_point_outside_the_ball_is_a_fault(small: Small, source: SourceModel) -> None:
    class Leaves(SquareStart):
        def propose(self, state: RowState, source: SourceNetwork) -> Tensor:
            return (state["x"] + 0.2).clamp(0, 1)

    attack = Leaves(LinfBall(LINF.eps), 5, 0.05, "image")
    querying = Querying(Judge(small.model), source, attack, LINF, 0, Rows(64, 16), NO_CHECKPOINT)
    with pytest.raises(FaultError, match="outside the ball"):
        querying.run(Examples(small.x, small.y, small.ids), small.x)


def test_what_is_not_confirmed_goes_on(small: Small, source: SourceModel, crafted: Tensor) -> None:
    class Doubtful(Judge):
        def confirm(
            self, threat: ThreatModel, x: Tensor, adversarial: Tensor, y: Tensor, ids: Tensor, number: int
        ) -> Judgement:
            judged = super().confirm(threat, x, adversarial, y, ids, number)
            return judged._replace(fooled=judged.fooled & (number > 2))

    done = run(Doubtful(small.model), source, SPECS[2], small, crafted)
    assert min(number for number in done.queries if number > 0) == 3

"""Asks a victim for scores, row by row and a batch at a time, until it is fooled or the budget is spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transferbench import attacks
from transferbench.attacks import Keys, RowState, lockstep
from transferbench.attacks.query_attack import QueryAttack
from transferbench.attacks.source_attack import Change, SourceNetwork
from transferbench.base.checkpoint import Checkpoint, State
from transferbench.base.results import NOT_FOOLED, WRONG_ON_CLEAN, Cost
from transferbench.base.specifications import ThreatModel
from transferbench.engine.judge import Judge, at_least, check_admissible
from transferbench.engine.memory import Rows
from transferbench.engine.verdicts import Examples, OnSettled


class QueryOutcome(NamedTuple):
    """`queries`: per example the number of the query that first fooled the victim, 0 where it is wrong on the clean
    image (WRONG_ON_CLEAN), -1 where no query of the budget did (NOT_FOOLED). `points` [n, ...] on the CPU: the fooling
    points; else the points of the highest margin; else the images. `cost`: forwards and backwards are the source's,
    `checks` are the victim's: clean predictions, queries and confirmations."""

    queries: list[int]
    points: Tensor
    cost: Cost


class PaddedSource:
    """The source in batches of at least `floor` rows (engine/judge.py), so that its answers do not depend on the batch
    size. It counts the rows that it passes: `forwards`, and `backwards` of those that a gradient is taken for."""

    def __init__(self, source: SourceNetwork, floor: int) -> None:
        self.source, self.floor = source, floor
        self.forwards = self.backwards = 0

    def __call__(self, x: Tensor, *names: str, changes: Mapping[str, Change] = {}) -> dict[str, Tensor]:
        self.forwards += len(x)
        self.backwards += len(x) if torch.is_grad_enabled() and x.requires_grad else 0
        outputs = self.source(at_least(x, self.floor), *names, changes=changes)
        return {name: output[: len(x)] for name, output in outputs.items()}

    def layers(self, *names: str) -> tuple[str, ...]:
        return self.source.layers(*names)


@dataclass
class _Progress:
    """What a checkpoint holds. `waiting`: the position of the first example that has not begun; `flight`: the positions
    of the rows of `state`; `turns`: how often the victim was asked, a batch at a time."""

    queries: list[int]
    points: Tensor
    waiting: list[int]
    flight: list[int]
    state: RowState | None
    forwards: int = 0
    backwards: int = 0
    checks: int = 0
    turns: int = 0


class Querying:
    """A query attack on the clean-correct examples of a shard.

    A row that fools the victim or has spent its budget leaves, and the next example takes its place. What a row does
    depends neither on the batch size nor on the other rows. `source` proposes, `judge` is the victim: it answers
    queries and confirms what fools it.
    """

    def __init__(
        self,
        judge: Judge,
        source: SourceNetwork,
        attack: QueryAttack,
        threat: ThreatModel,
        seed: int,
        rows: Rows,
        checkpoint: Checkpoint,
    ) -> None:
        self.judge, self.source, self.attack, self.threat, self.seed = judge, source, attack, threat, seed
        self.rows, self.checkpoint = rows, checkpoint

    def run(self, examples: Examples, begin: Tensor, on_progress: OnSettled | None = None) -> QueryOutcome:
        """Ask about all examples, continuing from the checkpoint. `begin` [n, ...]: where the attack starts, the images
        or crafted points. `on_progress` is called with (examples settled, examples not fooled).

        FaultError for an inadmissible point or a number that is not finite.
        """
        device = examples.x.device
        saved = self.checkpoint.load()
        self.now = self._begun(examples) if saved is None else _restored(saved, device)
        now = self.now
        while now.waiting or now.flight:
            self._refill(examples, begin)
            settled = self._turn(examples)
            self.checkpoint.offer(self._saved)
            if settled and on_progress is not None:
                on_progress(len(now.queries) - len(now.waiting) - len(now.flight), now.queries.count(NOT_FOOLED))
        return QueryOutcome(now.queries, now.points, Cost(now.forwards, now.backwards, checks=now.checks))

    def _begun(self, examples: Examples) -> _Progress:
        before = self.judge.checks
        correct = torch.eq(self.judge.logits(examples.x, examples.ids).argmax(1), examples.y)
        waiting = correct.nonzero().flatten().tolist()
        queries = [NOT_FOOLED if right else WRONG_ON_CLEAN for right in correct.tolist()]
        points = examples.x.cpu().clone()
        return _Progress(queries, points, waiting, [], None, checks=self.judge.checks - before)

    def _refill(self, examples: Examples, begin: Tensor) -> None:
        """Start rows for waiting examples in the free places."""
        now = self.now
        free = self.rows.most - len(now.flight)
        if not now.waiting or free <= 0:
            return
        fresh, now.waiting = now.waiting[:free], now.waiting[free:]
        at = torch.tensor(fresh, device=examples.x.device)
        x, y, ids = examples.at(at)
        noise = lockstep.try_keys(self.seed, self.threat.norm, self.threat.eps.text, 0, ids)
        source = PaddedSource(self.source, self.rows.floor)
        state = self.attack.start(x, y, source, Keys(noise, torch.zeros_like(ids)), begin[at])
        self._count(source)
        now.state = attacks.replace(now.state, at[:0], state)
        now.flight = now.flight + fresh

    def _turn(self, examples: Examples) -> bool:
        """One query of every row in flight. Whether any row has left."""
        now = self.now
        assert now.state is not None
        points, now.state = self.rows.within_memory(self._proposed)
        at = torch.tensor(now.flight, device=points.device)
        x, y, ids = examples.at(at)
        check_admissible(self.threat, x, points, ids)
        before = self.judge.checks
        now.turns += 1
        # Draws of its own for every turn, as confirmations have.
        logits = self.judge.logits(points, ids, f"query {now.turns}")
        self.attack.learn(now.state, points, margin(logits, y))
        fooled = torch.ne(logits.argmax(1), y)
        hits = fooled.nonzero().flatten()
        if len(hits):
            judged = self.judge.confirm(self.threat, x[hits], points[hits], y[hits], ids[hits], now.turns)
            fooled[hits] = judged.fooled
        now.checks += self.judge.checks - before
        gone = fooled | (now.state["query"] >= self.attack.queries)
        ends = torch.where(fooled.view(-1, *[1] * (points.dim() - 1)), points, now.state["x"])
        leaving = gone.nonzero().flatten()
        for row in leaving.tolist():
            now.points[now.flight[row]] = ends[row].cpu()
            if fooled[row]:
                now.queries[now.flight[row]] = int(now.state["query"][row])
        now.state = attacks.replace(now.state, leaving, None)
        now.flight = [place for place, left in zip(now.flight, gone.tolist(), strict=True) if not left]
        return bool(len(leaving))

    def _proposed(self, most: int) -> tuple[Tensor, RowState]:
        """The points to be asked about, and the state that proposed them, at most `most` rows at once."""
        state = self.now.state
        assert state is not None
        source = PaddedSource(self.source, self.rows.floor)
        parts = [{name: part[first : first + most] for name, part in state.items()} for first in self._firsts(most)]
        points = torch.cat([self.attack.propose(part, source) for part in parts])
        self._count(source)
        return points, {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _firsts(self, most: int) -> range:
        return range(0, len(self.now.flight), most)

    def _count(self, source: PaddedSource) -> None:
        self.now.forwards += source.forwards
        self.now.backwards += source.backwards

    def _saved(self) -> State:
        return dict(vars(self.now))


def _restored(saved: State, device: torch.device) -> _Progress:
    state: Any = saved["state"]
    on_device = None if state is None else {name: part.to(device) for name, part in state.items()}
    return _Progress(**{**saved, "state": on_device})


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """float32 [B]: the best other logit minus the label's."""
    others = logits.scatter(1, y[:, None], -float("inf")).amax(1)
    return others - logits.gather(1, y[:, None]).squeeze(1)

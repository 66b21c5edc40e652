"""The pool: continuous batching, one forward and one backward pass per iteration for all rows in flight.

A row is one (example, try). Rows of different attacks and at different iterations share the pass. A row that fools the
network, fails or is cancelled leaves, and the next try takes its slot. engine/ledger.py chooses the next try and the
deciding one; engine/judge.py decides whether a row fools.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transferbench import threats
from transferbench.attacks import Keys, RowAttack, RowState, lockstep, losses, replace, select
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.errors import FaultError
from transferbench.base.specifications import ThreatModel
from transferbench.engine import draws, target_order
from transferbench.engine.judge import Judge, at_least
from transferbench.engine.ledger import PATIENCE, Ledger, Spent
from transferbench.engine.memory import Rows
from transferbench.engine.search_model import SearchModel
from transferbench.engine.verdicts import Examples, OnSettled
from transferbench.threats import LpBall

EARLY_ROWS = 16
"""On a CPU larger batches are not faster per row: early tries (ledger.PATIENCE) fill the batch up to this size only."""


GPU_PATIENCE = 4
"""On a GPU further tries start after so many passes: of the 11 ms of an iteration with 200 rows of a ResNet-18 on an
H100 the passes took 2, so that more rows cost little."""


class RowGroup(NamedTuple):
    """The rows of one attack in flight.

    `state` is the attack's state with two more entries [B], `row_y` and `row_id`: labels and example ids. `tries` are
    int64 [B] on the CPU: the position of the `example`, the `rank` of its try, and its `age`, the number of passes.
    """

    state: RowState
    tries: RowState

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Examples, ranks and ages as numpy arrays that share the tensors' memory."""
        return self.tries["example"].numpy(), self.tries["rank"].numpy(), self.tries["age"].numpy()


class PoolResult(NamedTuple):
    """The verdicts in the examples' order. `rank` int64 [n] is the rank of the deciding try, -1 for survivors.

    `points` [n, ...] are the fooling points, the clean images for survivors; `pred`, `tie`, `distance` are the judge's,
    for survivors the clean prediction, False and 0. `spent` are the passes per rank. `margin` [n]: the smallest
    Judgement.margin of the points that were judged, infinity where none was.
    """

    rank: Tensor
    points: Tensor
    pred: Tensor
    tie: Tensor
    distance: Tensor
    spent: Spent
    margin: Tensor


class TargetOrder(NamedTuple):
    """MALT's scores [n, C] of the examples for which they are `known`, bool [n]."""

    scores: Tensor
    known: Tensor

    @classmethod
    def empty(cls, clean_logits: Tensor) -> TargetOrder:
        return cls(
            torch.zeros_like(clean_logits), torch.zeros(len(clean_logits), dtype=torch.bool, device=clean_logits.device)
        )


class PassOptions(NamedTuple):
    """How the engine runs an attack's tries: the number of draws of every gradient (engine/draws.py), and what orders
    the target classes (engine/target_order.py)."""

    draws: int = 1
    order: str = "logits"


class Pool:
    """Runs the tries of all attacks of a chain, in order, over examples that are classified correctly.

    `options` of each attack. Of a randomised model, about which the judge decides by several draws, every forward
    pass is seeded.
    """

    def __init__(
        self,
        attacks: Sequence[RowAttack],
        threat: ThreatModel,
        search: SearchModel,
        judge: Judge,
        rows: Rows,
        seed: int,
        options: Sequence[PassOptions] | None = None,
    ) -> None:
        self.attacks, self.threat, self.search, self.judge = attacks, threat, search, judge
        self.rows, self.seed = rows, seed
        self.options = options or [PassOptions()] * len(attacks)
        self.randomised, self.iteration, self.confirmations = judge.draws > 1, 0, 0
        self.passed: list[tuple[list[tuple[int, RowState]], Tensor, Tensor]] = []
        """Rows, outputs and gradients of this iteration's passes, of which it is not known whether they are finite."""
        self.owner = [number for number, attack in enumerate(attacks) for _ in range(attack.tries)]
        self.attempt = [attempt for attack in attacks for attempt in range(attack.tries)]

    def run(
        self,
        examples: Examples,
        clean_logits: Tensor,
        on_progress: OnSettled | None = None,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> PoolResult:
        """Attack the examples, whose logits by the original model are `clean_logits` [n, C].

        Continues from the checkpoint's state. FaultError when that is of other examples or tries.
        """
        x, y = examples.x, examples.y
        self.x, self.y, self.ids, self.clean_logits = x, y, examples.ids, clean_logits
        gradients = [self.attacks[owner].needs_grad for owner in self.owner]
        self.ledger = Ledger(len(x), gradients, GPU_PATIENCE if x.is_cuda else PATIENCE)
        self.groups: list[RowGroup | None] = [None] * len(self.attacks)
        self.orders = {
            number: TargetOrder.empty(clean_logits) for number, part in enumerate(self.options) if part.order == "malt"
        }
        self.points = x.clone()
        self.pred = clean_logits.argmax(1)
        self.tie = torch.zeros_like(y, dtype=torch.bool)
        self.distance = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        self.margin = torch.full((len(x),), math.inf, device=x.device)
        saved = checkpoint.load()
        if saved is not None:
            self._restore(saved)
        else:
            self._refill({})
        while not self.ledger.finished:
            self._iterate()
            checkpoint.offer(self._snapshot)
            if on_progress is not None:
                on_progress(self.ledger.settled, len(x) - self.ledger.fooled)
        decided = torch.from_numpy(self.ledger.decided).to(y.device)
        rank = torch.where(decided < self.ledger.ranks, decided, -1)
        return PoolResult(rank, self.points, self.pred, self.tie, self.distance, self._spent(), self.margin)

    def _spent(self) -> Spent:
        """The ledger's passes, a pass of several draws as so many, with those that ordered target classes."""
        draws = np.array([self.options[owner].draws for owner in self.owner], dtype=np.int64)
        spent = Spent(*(passes * draws for passes in vars(self.ledger.spent()).values()))
        for number, order in self.orders.items():
            first = self.owner.index(number)
            # Without the attack's early tries only examples that reach it would have been looked at.
            reached = order.known.cpu().numpy() & (self.ledger.decided >= first)
            needed, early = int(reached.sum()), int(order.known.sum()) - int(reached.sum())
            backwards = target_order.candidates(self.clean_logits.shape[1])
            spent.forwards[first] += needed
            spent.backwards[first] += needed * backwards
            spent.wasted[first] += early * backwards
        return spent

    def _iterate(self) -> None:
        """One pass of all rows, then the judge's confirmation of hits, the attacks' steps and the refill."""
        self.iteration += 1
        live = [(number, group) for number, group in enumerate(self.groups) if group is not None]
        outputs, gradients, per_rows = self._pass([(number, group.state) for number, group in live])
        wrong = self._wrong([group.state for _, group in live], outputs)
        gone: dict[int, NDArray[np.bool_]] = {}
        rows = zip(live, outputs, gradients, per_rows, wrong, strict=True)
        for (number, group), output, gradient, loss, proposed in rows:
            attack, state = self.attacks[number], group.state
            ages = group.tries["age"].numpy()
            ages += 1
            ended = ages == attack.passes
            left = self._confirm(group, state["x"], self._hits(attack, state, proposed, ended))
            following = attack.step(state, output, loss, gradient)
            if np.count_nonzero(ended):
                # A try that fails on the search model is judged once more, on the original model at its best point.
                left |= self._confirm(group, attack.best(state), ended & ~left)
                examples, ranks, _ = group.arrays()
                for row in np.flatnonzero(ended & ~left):
                    self.ledger.failed(int(examples[row]), int(ranks[row]))
                left |= ended
            state["x"] = following
            if np.count_nonzero(left):
                gone[number] = left
        self._refill(gone)

    def _wrong(self, states: list[RowState], outputs: list[Tensor]) -> list[NDArray[np.bool_]]:
        """bool [B] of each group: rows that the search model misclassifies. FaultError where a number is not finite.

        One transfer to the CPU, which is where a GPU is waited for, once in an iteration without hits.
        """
        parts = [~losses.largest_is(output, state["row_y"]) for output, state in zip(outputs, states, strict=True)]
        # A finite sum proves that all entries are finite.
        sums = torch.stack([output.sum() + gradient.sum() for _, output, gradient in self.passed])
        found = torch.cat([*parts, torch.isfinite(sums)]).cpu().numpy()
        sizes = [len(part) for part in parts]
        if not found[sum(sizes) :].all():
            for passed in self.passed:
                self._refuse_non_finite(*passed)
        self.passed.clear()
        return np.split(found[: sum(sizes)], np.cumsum(sizes)[:-1])

    def _hits(
        self, attack: RowAttack, state: RowState, wrong: NDArray[np.bool_], ended: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """bool [B]: of the rows that the search model misclassifies those at a point that counts."""
        if np.count_nonzero(wrong):
            wrong = wrong & attack.candidate(state).cpu().numpy()
            if attack.counts == "last":
                wrong = wrong & ended
        return wrong

    def _snapshot(self) -> dict[str, object]:
        """The state for `_restore`; points only of the examples that are fooled."""
        fooled = torch.from_numpy(self.ledger.decided < self.ledger.ranks).nonzero().flatten().to(self.x.device)
        return {
            "ledger": self.ledger.snapshot(),
            "groups": [None if group is None else group._asdict() for group in self.groups],
            "fooled": fooled,
            "points": self.points[fooled],
            "orders": {str(number): order._asdict() for number, order in self.orders.items()},
            "pred": self.pred,
            "tie": self.tie,
            "distance": self.distance,
            "margin": self.margin,
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        device = self.x.device
        self.ledger.restore(saved["ledger"])
        self.groups = [
            None
            if group is None
            else RowGroup({name: tensor.to(device) for name, tensor in group["state"].items()}, group["tries"])
            for group in saved["groups"]
        ]
        for number, order in saved["orders"].items():
            self.orders[int(number)] = TargetOrder(*(part.to(device) for part in order.values()))
        self.points[saved["fooled"].to(device)] = saved["points"].to(device)
        self.pred, self.tie, self.distance, self.margin = (
            saved[name].to(device) for name in ("pred", "tie", "distance", "margin")
        )

    def _pass(self, live: list[tuple[int, RowState]]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Forward and backward pass of all rows: the outputs, gradients and losses of each group's rows."""

        def passed(most: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
            # Without what a pass that ran out of memory has left.
            self.passed.clear()
            return self._in_parts(live, most)

        return self.rows.within_memory(passed)

    def _in_parts(self, live: list[tuple[int, RowState]], most: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """`_at_once`, or, when an out-of-memory error has reduced `most`, group by group at most that many rows."""
        if sum(len(state["x"]) for _, state in live) <= most:
            return self._at_once(live)
        joined: list[tuple[Tensor, ...]] = []
        for number, state in live:
            parts = []
            for rows in torch.arange(len(state["x"]), device=self.x.device).split(most):
                outputs, gradients, per_rows = self._at_once([(number, select(state, rows))])
                parts.append((outputs[0], gradients[0], per_rows[0]))
            joined.append(tuple(torch.cat(column) for column in zip(*parts, strict=True)))
        outputs, gradients, per_rows = (list(column) for column in zip(*joined, strict=True))
        return outputs, gradients, per_rows

    def _at_once(self, live: list[tuple[int, RowState]]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Outputs, gradients and losses: by a single pass of all rows, or of each attack's as the mean of its draws."""
        if not self.randomised and all(self.options[number].draws == 1 for number, _ in live):
            return self._single(live)
        outputs, gradients, per_rows = [], [], []
        for number, state in live:
            output, gradient, loss = self._mean_of_draws(number, state)
            outputs.append(output)
            gradients.append(gradient)
            per_rows.append(loss)
        return outputs, gradients, per_rows

    def _mean_of_draws(self, number: int, state: RowState) -> tuple[Tensor, Tensor, Tensor]:
        """The logarithm of the mean softmax, and the means of gradients and losses, of an attack's draws."""
        outputs: list[Tensor] = []
        gradients: list[Tensor] = []
        per_rows: list[Tensor] = []
        for draw in range(self.options[number].draws):
            draws.seed_draw("attack", self.seed, self.iteration, number, draw)
            output, gradient, loss = self._single([(number, state)])
            outputs += output
            # Sums, because a gradient is as large as the batch.
            gradients = [gradients[0].add_(gradient[0])] if gradients else gradient
            per_rows += loss
        count = len(outputs)
        return draws.mean_log_softmax(outputs), gradients[0] / count, torch.stack(per_rows).mean(0)

    def _single(self, live: list[tuple[int, RowState]]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Outputs, gradients and losses by a single pass of all rows."""
        sizes = [len(state["x"]) for _, state in live]
        rows = sum(sizes)
        batch = torch.cat([state["x"] for _, state in live]) if len(live) > 1 else live[0][1]["x"]
        batch = at_least(batch, self.search.floor)
        needs_grad = any(self.attacks[number].needs_grad for number, _ in live)
        with torch.enable_grad():
            point = batch.detach().requires_grad_(needs_grad)
            output = self.search.network(point)
            parts = [
                self.attacks[number].loss(part, state["row_y"], state)
                for (number, state), part in zip(live, _split(output, sizes), strict=True)
            ]
            ones = [torch.ones_like(part) for part in parts]
            gradient = torch.autograd.grad(parts, point, ones)[0] if needs_grad else torch.zeros_like(batch)
        # A copy, because attacks overwrite it and a model may return a tensor that it still uses. Contiguous, because
        # the gradient of a channels_last network has that layout, and mixed layouts slow every step down.
        gradient = gradient[:rows].clone(memory_format=torch.contiguous_format)
        output = output.detach()[:rows].float()
        self.passed.append((live, output, gradient))
        return _split(output, sizes), _split(gradient, sizes), [part.detach() for part in parts]

    def _refuse_non_finite(self, live: list[tuple[int, RowState]], output: Tensor, gradient: Tensor) -> None:
        """FaultError with the example ids when a logit or gradient is not finite; a sum of finite ones may overflow."""
        finite = torch.isfinite(output).all(1) & torch.isfinite(gradient.flatten(1)).all(1)
        if bool(finite.all()):
            return
        ids = torch.cat([state["row_id"] for _, state in live])[~finite]
        raise FaultError(
            f"the model's logits or gradients are not finite under attack for example ids "
            f"{ids[:8].tolist()}: such a row cannot be judged; repair the model"
        )

    def _confirm(self, group: RowGroup, points: Tensor, proposed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool [B]: the proposed rows of the group that fool the original model at these points, by the judge."""
        if np.count_nonzero(proposed) == 0:
            return proposed
        fooled, rows = np.zeros_like(proposed), np.flatnonzero(proposed)
        example_of, ranks, _ = group.arrays()
        chosen, examples = (torch.from_numpy(part).to(self.x.device) for part in (rows, example_of[rows]))
        # Counted by chain: what this process has attacked before does not matter.
        self.confirmations += 1
        judgement = self.judge.confirm(
            self.threat, self.x[examples], points[chosen], self.y[examples], self.ids[examples], self.confirmations
        )
        fooled[rows] = judgement.fooled.cpu().numpy()
        self.margin.scatter_reduce_(0, examples, judgement.margin, "amin")
        for position, row in enumerate(rows):
            example = int(example_of[row])
            if fooled[row] and self.ledger.hit(example, int(ranks[row])):
                self.points[example] = points[row]
                self.pred[example] = judgement.pred[position]
                self.tie[example] = judgement.tie[position]
                self.distance[example] = judgement.distance[position]
        return fooled

    def _refill(self, gone: dict[int, NDArray[np.bool_]]) -> None:
        """Remove the rows in `gone` and those that a hit cancelled, and start the next tries in their slots."""
        live = [(number, group) for number, group in enumerate(self.groups) if group is not None]
        in_flight = sum(len(group.tries["age"]) for _, group in live)
        early = self.rows.most if self.x.is_cuda else min(self.rows.most, EARLY_ROWS)
        # Only a hit cancels tries, and its row is in `gone`: in most iterations there is nothing to do.
        if live and not gone and in_flight >= (self.rows.most if self.ledger.waiting else early):
            return
        staying = 0
        leaving: dict[int, Tensor] = {}
        for number, group in live:
            examples, ranks, ages = group.arrays()
            self.ledger.charge(examples, ranks, ages)
            left = self.ledger.cancelled(examples, ranks)
            if number in gone:
                left |= gone[number]
            staying += int(np.count_nonzero(~left))
            leaving[number] = torch.from_numpy(np.flatnonzero(left))
        started = self.ledger.take(self.rows.most - staying)
        started += self.ledger.take_early(early - staying - len(started))
        for number in range(len(self.attacks)):
            pairs = [pair for pair in started if self.owner[pair[1]] == number]
            rows = leaving.get(number, torch.empty(0, dtype=torch.int64))
            if pairs or len(rows):
                self.groups[number] = self._replace(self.groups[number], rows, self._start(number, pairs))

    def _replace(self, group: RowGroup | None, rows: Tensor, fresh: RowGroup | None) -> RowGroup | None:
        """The group without `rows` and with the fresh group's; None when it is empty."""
        if group is None:
            return fresh
        state = replace(group.state, rows.to(self.x.device), None if fresh is None else fresh.state)
        tries = replace(group.tries, rows, None if fresh is None else fresh.tries)
        return None if state is None or tries is None else RowGroup(state, tries)

    def _start(self, number: int, pairs: list[tuple[int, int]]) -> RowGroup | None:
        """A group of fresh rows of one attack for pairs (example, rank); None without pairs."""
        if not pairs:
            return None
        example, rank = (torch.tensor(column) for column in zip(*pairs, strict=True))
        examples = example.to(self.x.device)
        ids, y = self.ids[examples], self.y[examples]
        noise = torch.empty_like(ids)
        for value in rank.unique().tolist():
            rows = (rank == value).to(self.x.device)
            noise[rows] = lockstep.try_keys(self.seed, self.threat.norm, self.threat.eps.text, value, ids[rows])
        attempts = torch.tensor([self.attempt[value] for _, value in pairs], device=self.x.device)
        logits = self._ranking(number, examples)
        state = self.attacks[number].start(self.x[examples], y, logits, Keys(noise, attempts))
        state.update(row_y=y, row_id=ids)
        return RowGroup(state, {"example": example, "rank": rank, "age": torch.zeros_like(rank)})

    def _ranking(self, number: int, examples: Tensor) -> Tensor:
        """[B, C]: what ranks the examples' target classes: their clean logits, or MALT's scores, made when the first
        try of an example that uses them starts."""
        order = self.orders.get(number)
        if order is None:
            return self.clean_logits[examples]
        new = examples[~order.known[examples]].unique()
        ball = threats.build(self.threat)
        for rows in new.split(self.rows.most) if len(new) else ():
            assert isinstance(ball, LpBall)
            if self.randomised:
                draws.seed_draw("target order", self.seed, number)
            x, y = self.x[rows], self.y[rows]
            order.scores[rows] = target_order.malt_scores(self.search.network, ball, x, y, self.search.floor)
            order.known[rows] = True
        return order.scores[examples]


def _split(rows: Tensor, sizes: list[int]) -> list[Tensor]:
    """The rows of each group; the rows after them are padding."""
    if sizes == [len(rows)]:
        return [rows]
    return list(rows[: sum(sizes)].split(sizes))

"""Continuous batching: one forward and one backward an iteration for whatever rows are in flight.

A row is one (example, try). Rows of different attacks and at different iterations share the pass; a row that
fools, fails or is cancelled leaves at once and the queue refills its place. engine/ledger.py says which try
comes next and which one decides; engine/judge.py says whether a row fooled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transferbench.attacks import Keys, RowAttack, State, lockstep, losses, replace, select
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.errors import FaultError
from transferbench.base.specifications import ThreatModel
from transferbench.engine.judge import Judge, at_least
from transferbench.engine.ledger import Ledger, Spent
from transferbench.engine.memory import Rows
from transferbench.engine.search_model import SearchModel
from transferbench.engine.verdicts import Examples

EARLY_ROWS = 16
"""On a CPU a batch gains nothing beyond this many rows: early tries (ledger.PATIENCE) fill up to here."""

OnProgress = Callable[[int, int], None]
"""Called with (examples settled, examples still robust)."""


class Group(NamedTuple):
    """The rows of one attack in flight: its own state, with `row_y` and `row_id` [B], their labels and ids; and their
    `seats`, int64 [B] each and on the CPU: `example`, `rank` and `age`, the passes made."""

    state: State
    seats: State

    def seated(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Examples, ranks and ages, to be read and written."""
        return self.seats["example"].numpy(), self.seats["rank"].numpy(), self.seats["age"].numpy()


class Swept(NamedTuple):
    """What the tries did to the examples, in the order given. `rank` is the deciding try, -1 for survivors.

    `points` [n, ...] are the fooling points, the clean image for survivors; `pred`, `tie`, `distance` are the
    judge's, for survivors the clean prediction, False and 0.
    """

    rank: Tensor
    points: Tensor
    pred: Tensor
    tie: Tensor
    distance: Tensor
    spent: Spent


class Pool:
    """The tries of all attacks of a chain, in order, over examples that are all classified correctly."""

    def __init__(
        self,
        attacks: Sequence[RowAttack],
        threat: ThreatModel,
        search: SearchModel,
        judge: Judge,
        rows: Rows,
        seed: int,
    ) -> None:
        self.attacks, self.threat, self.search, self.judge = attacks, threat, search, judge
        self.rows, self.seed = rows, seed
        self.owner = [number for number, attack in enumerate(attacks) for _ in range(attack.tries)]
        self.attempt = [attempt for attack in attacks for attempt in range(attack.tries)]

    def run(
        self,
        examples: Examples,
        clean_logits: Tensor,
        on_progress: OnProgress | None = None,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Swept:
        """Attack the examples, given the original model's logits [n, C] on them.

        Continues from the checkpoint, if it holds a state of the same examples and tries.
        """
        x, y = examples.x, examples.y
        self.x, self.y, self.ids, self.clean_logits = x, y, examples.ids, clean_logits
        self.ledger = Ledger(len(x), [self.attacks[owner].needs_grad for owner in self.owner])
        self.groups: list[Group | None] = [None] * len(self.attacks)
        self.points = x.clone()
        self.pred = clean_logits.argmax(1)
        self.tie = torch.zeros_like(y, dtype=torch.bool)
        self.distance = torch.zeros(len(x), dtype=torch.float64, device=x.device)
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
        return Swept(rank, self.points, self.pred, self.tie, self.distance, self.ledger.spent())

    def _iterate(self) -> None:
        live = [(number, group) for number, group in enumerate(self.groups) if group is not None]
        outputs, gradients, per_rows = self._pass([(number, group.state) for number, group in live])
        gone: dict[int, NDArray[np.bool_]] = {}
        for (number, group), output, gradient, loss in zip(live, outputs, gradients, per_rows, strict=True):
            attack, state = self.attacks[number], group.state
            ages = group.seats["age"].numpy()
            ages += 1
            ended = ages == attack.passes
            left = self._confirm(group, state["x"], self._hits(attack, state, output, ended))
            following = attack.step(state, output, loss, gradient)
            if np.count_nonzero(ended):
                # A try that found nothing on the copy is asked once more, on the original, at its best point.
                left |= self._confirm(group, attack.best(state), ended & ~left)
                examples, ranks, _ = group.seated()
                for row in np.flatnonzero(ended & ~left):
                    self.ledger.failed(int(examples[row]), int(ranks[row]))
                left |= ended
            state["x"] = following
            if np.count_nonzero(left):
                gone[number] = left
        self._refill(gone)

    def _hits(self, attack: RowAttack, state: State, output: Tensor, ended: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Rows that the copy misclassifies at a point that counts."""
        wrong: NDArray[np.bool_] = (~losses.largest_is(output, state["row_y"])).cpu().numpy()
        if np.count_nonzero(wrong):
            wrong = wrong & attack.candidate(state).cpu().numpy()
            if attack.counts == "last":
                wrong = wrong & ended
        return wrong

    def _snapshot(self) -> dict[str, object]:
        """All that the next iteration depends on; points only where an example has fallen."""
        fallen = torch.from_numpy(self.ledger.decided < self.ledger.ranks).nonzero().flatten().to(self.x.device)
        return {
            "ledger": self.ledger.snapshot(),
            "groups": [None if group is None else group._asdict() for group in self.groups],
            "fallen": fallen,
            "points": self.points[fallen],
            "pred": self.pred,
            "tie": self.tie,
            "distance": self.distance,
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        device = self.x.device
        self.ledger.restore(saved["ledger"])
        self.groups = [
            None
            if group is None
            else Group({name: tensor.to(device) for name, tensor in group["state"].items()}, group["seats"])
            for group in saved["groups"]
        ]
        self.points[saved["fallen"].to(device)] = saved["points"].to(device)
        self.pred, self.tie, self.distance = (saved[name].to(device) for name in ("pred", "tie", "distance"))

    def _pass(self, live: list[tuple[int, State]]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Forward and backward for all rows; per group the outputs, gradients and per-row losses."""
        return self.rows.within_memory(lambda most: self._in_parts(live, most))

    def _in_parts(self, live: list[tuple[int, State]], most: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """`_at_once`, or where memory ran out before, at most that many rows of one group after the other."""
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

    def _at_once(self, live: list[tuple[int, State]]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
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
        # A copy of its own: attacks write over it, and a model may hand out a tensor that it keeps. Contiguous: a
        # channels_last network hands back a channels_last gradient, and mixed layouts slow every step down.
        gradient = gradient[:rows].clone(memory_format=torch.contiguous_format)
        output = output.detach()[:rows].float()
        self._refuse_non_finite(live, output, gradient)
        return _split(output, sizes), _split(gradient, sizes), [part.detach() for part in parts]

    def _refuse_non_finite(self, live: list[tuple[int, State]], output: Tensor, gradient: Tensor) -> None:
        # Two sums tell in nearly every case that all is well; where one overflows, every entry is looked at.
        if math.isfinite(float(output.sum() + gradient.sum())):
            return
        finite = torch.isfinite(output).all(1) & torch.isfinite(gradient.flatten(1)).all(1)
        if bool(finite.all()):
            return
        ids = torch.cat([state["row_id"] for _, state in live])[~finite]
        raise FaultError(
            f"the model's logits or gradients are not finite under attack for example ids "
            f"{ids[:8].tolist()}: such a row cannot be judged; repair the model"
        )

    def _confirm(self, group: Group, points: Tensor, named: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool [rows of the group]: which of the named rows fool the original model at these points."""
        if np.count_nonzero(named) == 0:
            return named
        fooled, rows = np.zeros_like(named), np.flatnonzero(named)
        of_group, ranks, _ = group.seated()
        chosen, examples = (torch.from_numpy(part).to(self.x.device) for part in (rows, of_group[rows]))
        judged = self.judge(self.threat, self.x[examples], points[chosen], self.y[examples], self.ids[examples])
        fooled[rows] = judged.fooled.cpu().numpy()
        for place, row in enumerate(rows):
            example = int(of_group[row])
            if fooled[row] and self.ledger.hit(example, int(ranks[row])):
                self.points[example] = points[row]
                self.pred[example] = judged.pred[place]
                self.tie[example] = judged.tie[place]
                self.distance[example] = judged.distance[place]
        return fooled

    def _refill(self, gone: dict[int, NDArray[np.bool_]]) -> None:
        """Drop the rows that left and those that a hit cancelled, start the next tries in their places."""
        live = [(number, group) for number, group in enumerate(self.groups) if group is not None]
        flying = sum(len(group.seats["age"]) for _, group in live)
        early = self.rows.most if self.x.is_cuda else min(self.rows.most, EARLY_ROWS)
        # Only a hit cancels, and who hits is gone: in most iterations there is nothing to do.
        if live and not gone and flying >= (self.rows.most if self.ledger.waiting else early):
            return
        staying = 0
        leaving: dict[int, Tensor] = {}
        for number, group in live:
            examples, ranks, ages = group.seated()
            self.ledger.charge(examples, ranks, ages)
            left = self.ledger.cancelled(examples, ranks)
            if number in gone:
                left |= gone[number]
            staying += int(np.count_nonzero(~left))
            leaving[number] = torch.from_numpy(np.flatnonzero(left))
        started = self.ledger.take(self.rows.most - staying)
        started += self.ledger.take_early(early - staying - len(started))
        for number in range(len(self.attacks)):
            mine = [pair for pair in started if self.owner[pair[1]] == number]
            rows = leaving.get(number, torch.empty(0, dtype=torch.int64))
            if mine or len(rows):
                self.groups[number] = self._replaced(self.groups[number], rows, self._start(number, mine))

    def _replaced(self, group: Group | None, rows: Tensor, fresh: Group | None) -> Group | None:
        if group is None:
            return fresh
        state = replace(group.state, rows.to(self.x.device), None if fresh is None else fresh.state)
        seats = replace(group.seats, rows, None if fresh is None else fresh.seats)
        return None if state is None or seats is None else Group(state, seats)

    def _start(self, number: int, pairs: list[tuple[int, int]]) -> Group | None:
        if not pairs:
            return None
        example, rank = (torch.tensor(column) for column in zip(*pairs, strict=True))
        examples = example.to(self.x.device)
        ids, y = self.ids[examples], self.y[examples]
        noise = torch.empty_like(ids)
        for one in rank.unique().tolist():
            mine = (rank == one).to(self.x.device)
            noise[mine] = lockstep.try_keys(self.seed, self.threat.norm, self.threat.eps.text, one, ids[mine])
        attempts = torch.tensor([self.attempt[one] for _, one in pairs], device=self.x.device)
        state = self.attacks[number].start(self.x[examples], y, self.clean_logits[examples], Keys(noise, attempts))
        state.update(row_y=y, row_id=ids)
        return Group(state, {"example": example, "rank": rank, "age": torch.zeros_like(rank)})


def _split(rows: Tensor, sizes: list[int]) -> list[Tensor]:
    """The rows of each group; what follows them pads the batch."""
    if sizes == [len(rows)]:
        return [rows]
    return list(rows[: sum(sizes)].split(sizes))

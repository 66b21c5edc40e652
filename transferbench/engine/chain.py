"""One chain against one model on some examples: clean prediction, pool, verdicts, cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from transferbench import attacks
from transferbench.base.specifications import Chain
from transferbench.engine import judge, preflight
from transferbench.engine.judge import Judge, floor_of
from transferbench.engine.memory import Rows
from transferbench.engine.pool import Pool, Progress
from transferbench.engine.row_counter import Counted
from transferbench.engine.search_model import Frozen, as_is, freeze
from transferbench.engine.verdicts import ChainResult, Tally
from transferbench.store.checkpoint_file import NOTHING, Checkpoint

_PREFLIGHT_ROWS = 16


def default_slots(dimension: int) -> int:
    """Rows in flight on a CPU: 64 at 3x32x32, more for smaller images, up to 256. Verdicts do not depend on it."""
    return min(256, max(32, 196_608 // dimension))


@dataclass
class Target:
    """A model made ready for evaluation once and used for many chains: its judge, its copy, its flags.

    `batch_size` is what was asked for, `rows` how many are in flight now, `preflight` how many rows went through model
    and copy to make it ready.
    """

    judge: Judge
    frozen: Frozen
    num_classes: int
    flags: tuple[str, ...]
    batch_size: int | None
    rows: Rows
    preflight: int
    _clean: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    @classmethod
    def prepare(cls, model: nn.Module, x: Tensor, y: Tensor, batch_size: int | None = None) -> Target:
        """Pre-flight on the first images. InputError where the model or the examples are refused."""
        rows = x[:_PREFLIGHT_ROWS]
        looked = preflight.check_model(model, rows, y[:_PREFLIGHT_ROWS])
        preflight.check_labels(y, looked.num_classes)
        frozen = freeze(model, rows) if looked.copyable else as_is(model)
        asked = Counted(model)
        floor = floor_of(asked, rows) if looked.copyable else judge.FLOOR
        in_flight = Rows(batch_size or default_slots(x[0].numel()), frozen.floor)
        return cls(
            Judge(model, batch_size or 256, floor),
            frozen,
            looked.num_classes,
            looked.flags,
            batch_size,
            in_flight,
            looked.rows + frozen.rows + asked.rows,
        )

    def clean_logits(self, x: Tensor, ids: Tensor) -> Tensor:
        """The original model's logits on x, computed once for all chains that attack the same images."""
        if self._clean is None or self._clean[0] is not x:
            self._clean = (x, self.judge.logits(x, ids))
        return self._clean[1]


def run_chain(
    target: Target,
    chain: Chain,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    seed: int,
    progress: Progress | None = None,
    checkpoint: Checkpoint = NOTHING,
) -> ChainResult:
    """Attack x [n, ...] in [0,1] with labels y and ids int64 [n]; examples that are wrong on clean are fooled."""
    began, checked = time.perf_counter(), target.judge.checks
    built = [attacks.build(spec, chain.threat, target.num_classes) for spec in chain.attacks]
    logits = target.clean_logits(x, ids)
    tally = Tally(x, y, ids, logits.argmax(1))
    standing = tally.left
    pool = Pool(built, chain.threat, target.frozen, target.judge, target.rows, seed)
    if len(standing):
        swept = pool.run(x[standing], y[standing], ids[standing], logits[standing], progress, checkpoint)
        for number, attack in enumerate(built):
            ranks = [rank for rank, owner in enumerate(pool.owner) if owner == number]
            mine = torch.isin(swept.rank, torch.tensor(ranks, device=x.device)).nonzero().flatten()
            tally.fooled(
                attack.id,
                swept.rank[mine].tolist(),
                standing[mine],
                swept.points[mine],
                swept.pred[mine],
                swept.distance[mine],
                swept.tie[mine],
            )
            spent = {name: int(getattr(swept.spent, name)[ranks].sum()) for name in swept.spent.__dataclass_fields__}
            tally.attack_done(attack.id, len(ranks), spent)
    return tally.result(target.judge.checks - checked, time.perf_counter() - began)

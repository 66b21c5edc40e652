"""Independent verification of a run: every stored point, prediction and count, down to the table's cells.

numpy and the original model only. Nothing of the engine, the attacks or the geometry is used: distances, boxes, the
allowed rounding and the rates are computed here once more, and predictions are made in another batch size.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from transferbench import data
from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.results import AttackResult, CleanResult, CraftResult, JudgeResult, StoredFile
from transferbench.base.specifications import NORMS, Epsilon
from transferbench.base.versions import versions
from transferbench.data import Dataset, View
from transferbench.models.victim import Victim
from transferbench.models.victims import load as load_victim
from transferbench.results.records import (
    UNTRAINED,
    Bits,
    ChainRecord,
    CraftedRecord,
    Record,
    Stamp,
    digest,
    dump,
    read_all,
)
from transferbench.store.reader import FinishedJob, Reader

_BATCH = 37
"""No batch that anything else here uses."""
_TIE = 1e-4
"""A prediction that differs within this share of the logit range is a tie that fell the other way."""
_UNSTEADY = {"randomised", "state-between-calls"}
_CHUNK = 256
_COLUMNS = {
    ("pretrained-neuron", "Linf"): "pretrained_asr",
    ("random-sign", "Linf"): "noise_asr",
    ("source-pgd", "Linf"): "source_pgd_asr",
    ("pretrained-neuron", "renofeation"): "pretrained_renofeation_asr",
}

Array = NDArray[Any]


class VerificationError(Exception):
    """What was stored is not what is found now; the message says where."""


@dataclass
class Tally:
    """What the verification of one record counted."""

    points: int = 0
    changed_ties: int = 0
    disagreements: int = 0
    examples: dict[str, str] = field(default_factory=dict)


def verify(
    root: Path,
    data_dir: Path | None = None,
    model_dir: Path | None = None,
    device: str = "cpu",
    on_verified: Callable[[Record, Tally], None] = lambda *_: None,
) -> list[str]:
    """Check every record of a run's folder and stamp those that hold; the complaints about the others.

    InputError where there is nothing to check: no records, no store.
    """
    records, reader = read_all(root), Reader(root)
    complaints = []
    table = _table(root)
    crafted = {_file(job).sha256: job for job in reader.jobs() if job.kind == "craft"}
    for record in records:
        try:
            tally = _Check(record, reader, crafted, data_dir, model_dir, device).run()
            _check_cells(record, table)
        except (VerificationError, InputError) as error:
            complaints.append(f"{record.victim}: {error}")
            continue
        on_verified(record, tally)
        stamp = Stamp(
            record=digest(record),
            examples=dict(sorted(tally.examples.items())),
            version=versions()["transferbench"],
            points=tally.points,
            changed_ties=tally.changed_ties,
            disagreements=tally.disagreements,
        )
        path = root / "records" / f"{file_stem(record.victim)}.json"
        atomic_files.write_text(path, dump(record.model_copy(update={"stamp": stamp})))
    return complaints


class _Check:
    """One record against the store it came from."""

    def __init__(
        self,
        record: Record,
        reader: Reader,
        crafted: dict[str, FinishedJob],
        data_dir: Path | None,
        model_dir: Path | None,
        device: str,
    ) -> None:
        self.record, self.reader, self.crafted, self.device = record, reader, crafted, device
        self.data_dir, self.model_dir = data_dir, model_dir
        self.tally = Tally()

    def run(self) -> Tally:
        """VerificationError for the first thing that does not hold."""
        record = self.record
        shards = {chain.name: [self._job(key) for key in chain.jobs] for chain in record.chains}
        if not shards:
            raise VerificationError("nothing was measured")
        first = next(iter(shards.values()))[0]
        self.victim = self._victim(first)
        if self.victim.sha256 != record.weights_sha256:
            raise VerificationError(f"the weights now have sha256 {self.victim.sha256[:12]}..., not the record's")
        view = View(first.specification.preprocessing)
        self.test = data.load(record.target_dataset, "test", self.data_dir, view)
        self.examples = self.test.first(record.n)
        if self.examples.fingerprint != record.data_fingerprint:
            raise VerificationError(f"data set {record.target_dataset} now has fingerprint {self.examples.fingerprint}")
        self.place = {int(id): at for at, id in enumerate(self.examples.ids)}
        self.labels = self.examples.labels.numpy()
        for chain in record.chains:
            self._chain(chain, shards[chain.name])
        for made in record.crafted:
            self._shown(made)
        if record.clean_full is not None:
            self._clean_full(record.clean_full)
        return self.tally

    def _job(self, key: str) -> FinishedJob:
        job = self.reader.job(key)
        if job is None:
            raise VerificationError(f"job {key} is not in the store")
        return job

    def _victim(self, job: FinishedJob) -> Victim:
        public_id = job.specification.network
        if public_id is not None:
            return load_victim(public_id, self.model_dir).to(self.device)
        folder = self.reader.root / "victims" / file_stem(self.record.victim)
        return load_victim(str(folder)).to(self.device)

    def _chain(self, chain: ChainRecord, shards: Sequence[FinishedJob]) -> None:
        """Counts against verdicts, verdicts against points, points against the threat and the model."""
        fooled = np.zeros(self.record.n, dtype=bool)
        seen = np.zeros(self.record.n, dtype=int)
        wrong_on_clean = np.zeros(self.record.n, dtype=bool)
        broke: dict[str, int] = {}
        ties = 0
        for shard in shards:
            stored = shard.specification.chain.as_dict()
            if any(stored[name] != getattr(chain, name) for name in ("norm", "eps", "attacks")):
                raise VerificationError(f"{chain.name}: the store's chain is not the record's")
            verdicts = shard.result(AttackResult).verdicts
            at = np.array([self._at(verdict.example) for verdict in verdicts])
            np.add.at(seen, at, 1)
            if (seen > 1).any():
                raise VerificationError(f"{chain.name}: an example has more than one verdict")
            fooled[at] = [verdict.fooled for verdict in verdicts]
            wrong_on_clean[at] = [verdict.attack == "clean" for verdict in verdicts]
            for verdict in verdicts:
                if verdict.rank >= 0:
                    broke[verdict.attack] = broke.get(verdict.attack, 0) + 1
                ties += verdict.tie
            self._shard(chain, shard, at)
        where = f"{chain.name}: "
        if not seen.all():
            raise VerificationError(f"{where}{int((seen == 0).sum())} examples have no verdict")
        self._same(f"{where}robust", chain.robust, ~fooled)
        self._same(f"{where}clean", self.record.clean, ~wrong_on_clean)
        counted = {part["attack"]: part["broke"] for part in chain.by_attack}
        if {name: count for name, count in counted.items() if count} != broke:
            raise VerificationError(f"{where}the record counts {counted} broken, the verdicts say {broke}")
        if ties != chain.ties:
            raise VerificationError(f"{where}the record counts {chain.ties} ties, the verdicts say {ties}")
        for name in ("forwards", "backwards"):
            spent = sum(getattr(shard.result(AttackResult).cost, name) for shard in shards)
            if spent != getattr(chain, name):
                raise VerificationError(f"{where}{getattr(chain, name)} {name} in the record, {spent} in the store")

    def _shard(self, chain: ChainRecord, shard: FinishedJob, at: NDArray[np.int64]) -> None:
        result = shard.result(AttackResult)
        where = f"{chain.name}, examples from {shard.specification.start}"
        images, labels = self._pixels(at), self.labels[at]
        example = [verdict.example for verdict in result.verdicts]
        fooled = np.array([verdict.fooled for verdict in result.verdicts])
        pred = np.array([verdict.pred for verdict in result.verdicts])
        attacked = np.array([verdict.rank >= 0 for verdict in result.verdicts])
        on_clean = np.array([verdict.attack == "clean" for verdict in result.verdicts])
        if not (fooled == (attacked | on_clean)).all():
            raise VerificationError(f"{where}: an example counts as fooled by nothing, or the other way round")
        # An example that no attack fooled has its clean prediction: wrong where `clean`, right where robust.
        rest = np.flatnonzero(~attacked)
        self._predictions(where, images[rest], pred[rest])
        if (on_clean[rest] != (pred[rest] != labels[rest])).any():
            raise VerificationError(f"{where}: a clean prediction and its verdict contradict each other")
        if result.kept == "none" or result.examples is None:
            raise VerificationError(f"{where}: no end points were kept (--keep-examples none): nothing can be verified")
        if result.kept.startswith("sample"):
            raise VerificationError(f"{where}: only a sample of the end points was kept: fooled or all is needed")
        tensors = self._tensors(result.examples)
        row_of = {int(id): row for row, id in enumerate(tensors["ids"])}
        down = np.flatnonzero(attacked)
        missing = [example[place] for place in down if example[place] not in row_of]
        if missing:
            raise VerificationError(f"{where}: no end point for example {missing[0]}")
        rows = [row_of[example[place]] for place in down]
        points = tensors["points"].numpy()[rows] if rows else images[:0]
        distances = admissible(where, chain.norm, chain.eps, images[down], points)
        recorded = np.array([verdict.distance for verdict in result.verdicts])[down]
        if not np.allclose(distances, recorded, rtol=1e-9, atol=1e-12):
            raise VerificationError(f"{where}: a recorded distance is not that of its end point")
        if (pred[down] == labels[down]).any():
            raise VerificationError(f"{where}: a verdict is fooled, and its prediction the label")
        self._predictions(where, points, pred[down])
        self.tally.points += len(rows)

    def _shown(self, made: CraftedRecord) -> None:
        """A crafted set: its points against the threat, the model's answers against the flips, the flips' bits."""
        flipped = np.zeros((len(made.flips), self.record.n), dtype=bool)
        for judge in map(self._job, made.jobs):
            crafted = self._crafted(judge)
            judged = judge.result(JudgeResult)
            tensors = self._tensors(_file(crafted))
            at = np.array([self._at(int(id)) for id in tensors["ids"]])
            images, labels = self._pixels(at), self.labels[at]
            where = f"{made.attack['id']} of {made.source}, examples from {judge.specification.start}"
            specification = crafted.specification
            threat = (specification.threat.norm, specification.threat.eps.text)
            if specification.attack.as_dict() != made.attack or threat != (made.norm, made.eps):
                raise VerificationError(f"{where}: the store's crafted set is not the record's")
            right = np.array(judged.correct)
            for attempt, points in enumerate(tensors["points"].numpy()):
                admissible(where, made.norm, made.eps, images, points)
                flips = np.array(judged.flips[attempt])
                if (flips & ~right).any():
                    raise VerificationError(f"{where}: an example that is wrong on clean counts as flipped")
                self._right(where, points, labels, ~flips, right)
                flipped[attempt, at] = flips
            self._right(where, images, labels, right, np.ones(len(right), dtype=bool))
            self.tally.points += len(right) * len(made.flips)
        for attempt, bits in enumerate(made.flips):
            self._same(f"{made.attack['id']} of {made.source}, try {attempt}", bits, flipped[attempt])

    def _crafted(self, judge: FinishedJob) -> FinishedJob:
        """The crafting job that a judging job read: the one whose examples have the hash in its key."""
        for name, value in judge.content.items():
            if name.startswith("input") and value in self.crafted:
                return self.crafted[value]
        raise VerificationError(f"{judge.label}: the crafted set it judged is not in the store")

    def _clean_full(self, counted: tuple[int, int]) -> None:
        job = self._job(self.record.clean_full_job)
        clean = job.result(CleanResult)
        if (clean.correct, clean.n) != counted or counted[1] != len(self.test):
            raise VerificationError("the clean accuracy on the whole split is not the store's")
        right, near = 0, 0
        for start in range(0, len(self.test), _CHUNK):
            part: Dataset = self.test.select(range(start, min(start + _CHUNK, len(self.test))))
            logits = self._logits(part.pixels.numpy())
            right += int((logits.argmax(1) == part.labels.numpy()).sum())
            near += int((_margin(logits) < _TIE).sum())
        if abs(right - counted[0]) > near and not self._unsteady:
            raise VerificationError(
                f"{right} of {counted[1]} are right on the whole split, the record says {counted[0]}"
            )

    @property
    def _unsteady(self) -> bool:
        return bool(_UNSTEADY & set(self.record.flags))

    def _at(self, example: int) -> int:
        if example not in self.place:
            raise VerificationError(f"example {example} is none of the first {self.record.n}")
        return self.place[example]

    def _pixels(self, at: NDArray[np.int64]) -> Array:
        pixels: Array = self.examples.select(torch.from_numpy(at)).pixels.numpy()
        return pixels

    def _tensors(self, file: StoredFile) -> dict[str, torch.Tensor]:
        tensors = self.reader.examples(file)
        self.tally.examples[file.path] = file.sha256
        return tensors

    def _logits(self, images: Array) -> Array:
        """float32 [B, C] of the original model, in batches of a size that nothing else uses."""
        parts: list[Array] = [np.zeros((0, self.victim.num_classes), dtype=np.float32)]
        with torch.no_grad():
            for start in range(0, len(images), _BATCH):
                batch = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH])).to(self.device)
                parts.append(self.victim.model(batch).float().cpu().numpy())
        return np.concatenate(parts)

    def _predictions(self, where: str, images: Array, recorded: Array) -> None:
        """The recorded classes are predicted; within a tie's margin another one may be."""
        logits = self._logits(images)
        self._differ(where, logits, logits.argmax(1) != recorded)

    def _right(self, where: str, images: Array, labels: Array, right: Array, among: Array) -> None:
        """Which of the rows `among` are predicted right is as recorded."""
        logits = self._logits(images)
        self._differ(where, logits, ((logits.argmax(1) == labels) != right) & among)

    def _differ(self, where: str, logits: Array, other: Array) -> None:
        tied = other & (_margin(logits) < _TIE) if len(logits) else other
        self.tally.changed_ties += int(tied.sum())
        self.tally.disagreements += int((other & ~tied).sum())
        if (other & ~tied).any() and not self._unsteady:
            raise VerificationError(f"{where}: {int((other & ~tied).sum())} predictions are others now")

    def _same(self, what: str, bits: Bits, found: Array) -> None:
        if bits.list() != found.tolist():
            raise VerificationError(
                f"{what}: the record's bits are not the verdicts' ({bits.count}, {int(found.sum())})"
            )


def _file(crafted: FinishedJob) -> StoredFile:
    """The file of a finished crafting job. VerificationError where it names none."""
    file = crafted.result(CraftResult).examples
    if file is None:
        raise VerificationError(f"{crafted.label}: the crafted set was not stored")
    return file


def _margin(logits: Array) -> Array:
    """[B]: how far the largest logit is above the second, as a share of the range."""
    ordered = np.sort(logits.astype(np.float64), axis=1)
    margin: Array = (ordered[:, -1] - ordered[:, -2]) / np.maximum(ordered[:, -1] - ordered[:, 0], 1e-30)
    return margin


def admissible(where: str, norm: str, eps: str, images: Array, points: Array) -> Array:
    """float64 [B]: distances. VerificationError for a point that is not finite, outside [0,1], or outside the ball.

    The allowed excess is the protocol's: 2^-23 in Linf, 1e-6 + 2^-24 sqrt(d) in L2, 1e-6 + 2^-24 d in L1. In
    Renofeation's own ball the limits are those of the normalised image, and [0,1] need not be kept.
    """
    d = int(np.prod(points.shape[1:]))
    apart = np.abs(points.astype(np.float64) - images.astype(np.float64)).reshape(len(points), d)
    if norm == "renofeation":
        return _admissible_seed(where, float(Epsilon.parse(eps).value), images, points, apart.max(axis=1, initial=0.0))
    if norm == "Linf":
        distances, excess = apart.max(axis=1, initial=0.0), 2.0**-23
    elif norm == "L2":
        distances, excess = np.sqrt(np.square(apart).sum(axis=1)), 1e-6 + 2.0**-24 * float(np.sqrt(d))
    else:
        distances, excess = apart.sum(axis=1), 1e-6 + 2.0**-24 * d
    faults = {
        "is not finite": ~np.isfinite(points.reshape(len(points), d)).all(axis=1),
        "lies outside [0,1]": ((points < 0) | (points > 1)).reshape(len(points), d).any(axis=1),
        f"lies outside the {norm} ball of {eps}": ~(distances <= float(Epsilon.parse(eps).value) + excess),
    }
    for fault, rows in faults.items():
        if rows.any():
            raise VerificationError(f"{where}: end point {int(np.flatnonzero(rows)[0])} {fault}")
    return distances


def _admissible_seed(where: str, eps: float, images: Array, points: Array, distances: Array) -> Array:
    """`admissible` in Renofeation's normalised space: within eps of the image, clipped to [-2.2, 2.2]."""
    mean, std = (np.array(part).reshape(1, 3, 1, 1) for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    seen, moved = (images.astype(np.float64) - mean) / std, (points.astype(np.float64) - mean) / std
    low, high = np.clip(seen - eps, -2.2, 2.2), np.clip(seen + eps, -2.2, 2.2)
    # 2^-22 in pixels, a little more in units of the smallest deviation.
    excess = 2.0**-22 / 0.224
    inside = ((moved >= low - excess) & (moved <= high + excess)).reshape(len(points), -1).all(axis=1)
    if not inside.all():
        at = int(np.flatnonzero(~inside)[0])
        raise VerificationError(f"{where}: end point {at} lies outside the renofeation ball of {eps}")
    return distances


def _table(root: Path) -> dict[str, dict[str, str]] | None:
    """leaderboard.csv's rows by victim; None where there is no such file."""
    path = root / "leaderboard.csv"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["victim"]: row for row in csv.DictReader(stream)}


def _check_cells(record: Record, table: dict[str, dict[str, str]] | None) -> None:
    """The table's rates are those of the record's bits. VerificationError otherwise."""
    if table is None or record.role == "source" or UNTRAINED in record.flags:
        return
    row = table.get(record.victim)
    if row is None:
        raise VerificationError("leaderboard.csv has no row for it")

    def rate(bits: Array, of: int) -> str:
        return f"{100 * int(bits.sum()) / of:.2f}" if of else ""

    clean = np.array(record.clean.list())
    expected = {"n": str(record.n), "clean_acc": rate(clean, record.n)}
    chains = {chain.name: np.array(chain.robust.list()) for chain in record.chains}
    expected |= {f"{norm.lower()}_acc": rate(chains[norm], record.n) for norm in NORMS if norm in chains}
    if all(norm in chains for norm in NORMS):
        expected["union_acc"] = rate(np.logical_and.reduce([chains[norm] for norm in NORMS]), record.n)
    if "pgd20_linf" in chains:
        expected["pgd20_linf_acc"] = rate(chains["pgd20_linf"], record.n)
    for made in record.crafted:
        column = _COLUMNS.get((made.attack["id"], made.norm))
        if column is not None and made.source == record.source:
            flipped = np.logical_or.reduce([bits.list() for bits in made.flips])
            expected[column] = rate(flipped, int(clean.sum()))
    for column, value in expected.items():
        if row[column] != value:
            raise VerificationError(f"leaderboard.csv says {column} = {row[column]}, the verdicts give {value}")

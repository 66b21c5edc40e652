"""Independent verification of a run: every stored point, prediction and count, and the cells of the table.

It uses numpy and the original model, and nothing of the engine, the attacks, the threats or the leaderboard: distances,
tolerances and rates are computed with code of its own, and predictions with another batch size.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from transferbench import data
from transferbench.base import atomic_files, full_precision
from transferbench.base.corruptions import benchmark
from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.results import (
    AttackResult,
    CleanResult,
    CorrectResult,
    CraftResult,
    FileFormat,
    FileVerdicts,
    JudgeResult,
    QueryResult,
    StoredFile,
)
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import NORMS, Epsilon
from transferbench.base.versions import versions
from transferbench.data import Dataset, View
from transferbench.models import python_function
from transferbench.models.victim import Victim
from transferbench.models.victims import load as load_victim
from transferbench.results import assemble
from transferbench.results.records import (
    UNTRAINED,
    Bits,
    ChainRecord,
    CorruptedRecord,
    CorruptionRecord,
    CraftedRecord,
    FileRecord,
    QueriedRecord,
    Record,
    Stamp,
    digest,
    dump,
    read_all,
)
from transferbench.results.saved_images import read_again
from transferbench.results.worker_processes import in_processes
from transferbench.store.reader import FinishedJob, Reader

_BATCH = 37
"""A batch size that the engine does not use."""
_TIE = 1e-4
"""A prediction may differ where the two largest logits are within this share of the logit range."""
_UNSTEADY = {"randomised", "state-between-calls", "mixes-rows"}
_OF_RECORDS = {UNTRAINED, "accuracy-at-chance"}
"""Flags that are the record's and not a job's."""
_RESULTS: dict[str, type[AttackResult | JudgeResult | CorrectResult]] = {
    "attack": AttackResult,
    "judge": JudgeResult,
    "correct": CorrectResult,
}
_CHUNK = 256
_HERE = RunSettings()
_COLUMNS = {
    ("pretrained-neuron", "Linf"): "pretrained_asr",
    ("random-sign", "Linf"): "noise_asr",
    ("source-pgd", "Linf"): "source_pgd_asr",
    ("pretrained-neuron", "renofeation"): "pretrained_renofeation_asr",
}
_QUERY_CONTROLS = {"simba-ods": ("directions", "random"), "square-start": ("start", "stripes")}
"""The parameter and its value that make a query attack's control."""

Array = NDArray[Any]


class VerificationError(Exception):
    """A stored value contradicts the verification; the message names it."""


@dataclass
class VerificationCounts:
    """The counts of one record's verification, for its stamp; `examples` are sha256s by relative path,
    `unstamped` is why the stamp could not be written."""

    points: int = 0
    changed_ties: int = 0
    disagreements: int = 0
    examples: dict[str, str] = field(default_factory=dict)
    unstamped: str = ""


def verify(
    root: Path,
    settings: RunSettings = _HERE,
    on_verified: Callable[[Record, VerificationCounts], None] = lambda *_: None,
    on_begin: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Verify every record of a run's folder, stamp the correct ones and return a complaint about each of the others.

    `settings` name the folders of data and weights and where the work is done (device, workers, gpus). `on_begin` is
    called with the number of records, `on_verified` with each and what was verified. InputError when the folder has no
    records or no store.
    """
    records = read_all(root)
    prepare = partial(_RunVerifier, root, settings, python_function.trusts_cards())
    on_begin(len(records))
    workers = min(settings.workers, len(records))
    verified: Iterator[tuple[int, VerificationCounts | str]]
    if workers > 1 or settings.gpus:
        # A store that cannot be read is said before processes begin.
        Reader(root)
        verified = in_processes(prepare, records, workers, settings.gpus)
    else:
        verified = enumerate(map(prepare(), records))
    complaints: dict[int, str] = {}
    for position, found in verified:
        record = records[position]
        if isinstance(found, str):
            complaints[position] = f"{record.victim}: {found}"
            continue
        found.unstamped = _stamp(root, record, found)
        on_verified(record, found)
    return [complaints[position] for position in sorted(complaints)]


def _stamp(root: Path, record: Record, counts: VerificationCounts) -> str:
    """Write a record with its stamp; why that cannot be, if it cannot."""
    stamp = Stamp(
        record=digest(record),
        examples=dict(sorted(counts.examples.items())),
        version=versions()["transferbench"],
        points=counts.points,
        changed_ties=counts.changed_ties,
        disagreements=counts.disagreements,
    )
    path = root / "records" / f"{file_stem(record.victim)}.json"
    try:
        atomic_files.write_text(path, dump(record.model_copy(update={"stamp": stamp})))
    except OSError as error:
        # A run that may only be read is verified all the same.
        return error.strerror or str(error)
    return ""


class _RunVerifier:
    """Compares records with the run's store, data, models and table, in this process."""

    def __init__(self, root: Path, settings: RunSettings, trusts_cards: bool) -> None:
        full_precision.switch_on()
        if trusts_cards:
            python_function.trust_cards()
        self.settings, self.reader, self.table = settings, Reader(root), _table(root)
        self.crafted: dict[str, list[FinishedJob]] = {}
        for job in self.reader.jobs("craft"):
            try:
                self.crafted.setdefault(_file(job).sha256, []).append(job)
            except VerificationError as error:
                raise InputError(str(error)) from None

    def __call__(self, record: Record) -> VerificationCounts | str:
        """What was verified, or the first contradiction."""
        try:
            counts = _RecordVerifier(record, self.reader, self.crafted, self.settings).run()
            _check_cells(record, self.table)
        except (VerificationError, InputError) as error:
            return str(error)
        return counts


class _RecordVerifier:
    """Compares one record with the run's store, data and model."""

    def __init__(
        self,
        record: Record,
        reader: Reader,
        crafted: dict[str, list[FinishedJob]],
        settings: RunSettings,
    ) -> None:
        self.record, self.reader, self.crafted, self.device = record, reader, crafted, settings.device
        self.data_dir, self.model_dir = settings.data_dir, settings.model_dir
        self.counts = VerificationCounts()
        self.source_of: dict[str, set[Any]] = {}
        self.clean_files: dict[FileFormat, tuple[Array, Array]] = {}
        self.clean_logits: Array | None = None

    def run(self) -> VerificationCounts:
        """Verify everything. VerificationError for the first contradiction."""
        record = self.record
        shards = {chain.name: [self._job(key) for key in chain.jobs] for chain in record.chains}
        parts = [*shards.values(), *([self._job(key) for key in crafted.jobs] for crafted in record.crafted)]
        parts += [[self._job(record.clean_job)]] if record.clean_job else []
        if not parts or not parts[0]:
            raise VerificationError("nothing was measured")
        first = parts[0][0]
        self.victim = self._victim(first)
        if self.victim.sha256 != record.weights_sha256:
            raise VerificationError(f"the weights now have sha256 {self.victim.sha256[:12]}..., not the record's")
        view = View.parse(first.specification.preprocessing)
        self.test = data.load(record.target_dataset, "test", self.data_dir, view)
        self.examples = self.test.first(record.n, bool(record.stratified))
        if (self.examples.shape, self.examples.preprocessing) != (record.image_shape, record.preprocessing):
            raise VerificationError(f"the record's images are {record.images}, the store's are not")
        expected = first.content.get("victim", first.content.get("input 0"))
        if expected != self.victim.card.identity:
            raise VerificationError(
                "the victim's card says another network, classes, input or weights than was attacked"
            )
        if self.victim.card.dataset not in (record.target_dataset, "unknown") and first.specification.network is None:
            raise VerificationError(f"the victim's card says data set {self.victim.card.dataset}")
        if self.victim.card.method != record.method:
            raise VerificationError(f"the victim's card says method {self.victim.card.method}, not {record.method}")
        if self.examples.fingerprint != record.data_fingerprint:
            raise VerificationError(f"data set {record.target_dataset} now has fingerprint {self.examples.fingerprint}")
        self.position_of = {int(id): position for position, id in enumerate(self.examples.ids)}
        self.labels = self.examples.labels.numpy()
        if self.examples.class_counts() != record.class_counts:
            raise VerificationError("the record's class counts are not the data set's")
        self._circumstances([job for jobs in parts for job in jobs])
        for chain in record.chains:
            self._chain(chain, shards[chain.name])
        for crafted in record.crafted:
            self._crafted_set(crafted)
        for asked in record.queried:
            self._queried(asked)
        if record.clean_full is not None:
            self._clean_full(record.clean_full)
        if record.clean_job:
            self._correct("clean images", record.clean, record.clean_job, self.examples)
        for one in record.corruptions:
            for part in one.parts:
                self._corrupted(one.threat, part)
        return self.counts

    def _circumstances(self, jobs: Sequence[FinishedJob]) -> None:
        """Compare the record's seed, flags and batch with those of its jobs."""
        record = self.record
        flags: set[str] = set()
        for job in jobs:
            if job.specification.values.get("seed", record.seed) != record.seed:
                raise VerificationError(f"{job.label}: it was attacked with another seed than the record's")
            result = job.result(_RESULTS[job.kind])
            flags |= set(result.flags)
            # Other jobs may have run before an attack found that the network mixes rows.
            if result.batch != record.batch and (isinstance(result, AttackResult) or result.batch is not None):
                raise VerificationError(f"{job.label}: its batch is {result.batch}, the record says {record.batch}")
        others = set(record.flags) - flags - _OF_RECORDS
        if others or flags - set(record.flags):
            raise VerificationError(f"the record's flags {record.flags} are not its jobs', {sorted(flags)}")

    def _corrupted(self, threat: str, part: CorruptedRecord) -> None:
        """Verify one corruption at one severity: the images, and which of them the model classifies correctly."""
        where = f"{threat}, {part.corruption} {part.severity}"
        base, items = DatasetId.parse(self.record.target_dataset)
        id = str(DatasetId(f"{benchmark(threat, base).family}:{part.corruption}:{part.severity}", items))
        images = data.load(id, "test", self.data_dir, View()).first(self.record.n)
        if images.fingerprint != part.data_fingerprint:
            raise VerificationError(f"{where}: data set {id} now has fingerprint {images.fingerprint}")
        if images.labels.tolist() != self.labels.tolist():
            raise VerificationError(f"{where}: the images' labels are not those of the clean ones")
        if self._job(part.job).specification.values.get("dataset") != id:
            raise VerificationError(f"{where}: the store's job is of other images")
        self._correct(where, part.correct, part.job, images)

    def _correct(self, where: str, recorded: Bits, key: str, images: Dataset) -> None:
        """Compare the record's correct images with the store's and the model's."""
        result = self._job(key).result(CorrectResult)
        if (result.correct, result.n) != (recorded.hex, recorded.n):
            raise VerificationError(f"{where}: the record's bits are not the store's")
        right = np.array(recorded.list())
        for start in range(0, len(images), _CHUNK):
            part = images.select(range(start, min(start + _CHUNK, len(images))))
            of_part = right[start : start + _CHUNK]
            logits = self._logits(part.pixels.numpy())
            self._right(where, logits, part.labels.numpy(), of_part, np.ones(len(of_part), dtype=bool))

    def _job(self, key: str) -> FinishedJob:
        job = self.reader.job(key)
        if job is None:
            raise VerificationError(f"job {key} is not in the store")
        return job

    def _victim(self, job: FinishedJob) -> Victim:
        public_id = job.specification.network
        if public_id is not None:
            if public_id.startswith(python_function.PREFIX):
                # The store named it, not the user.
                python_function.check_trusted(public_id)
            return load_victim(public_id, self.model_dir).to(self.device)
        folder = self.reader.root / "victims" / file_stem(self.record.victim)
        return load_victim(str(folder)).to(self.device)

    def _chain(self, chain: ChainRecord, shards: Sequence[FinishedJob]) -> None:
        """Compare the record's counts with the stored verdicts, and these with points, threat and model (`_shard`)."""
        # The first so many of the n; a chain of another number than the record's first is no record.
        n = self.record.n_chains
        fooled = np.zeros(n, dtype=bool)
        verdicts_of = np.zeros(n, dtype=int)
        wrong_on_clean = np.zeros(n, dtype=bool)
        broke: dict[str, int] = {}
        ties = 0
        files: list[tuple[NDArray[np.int64], Sequence[FileVerdicts]]] = []
        for shard in shards:
            stored = shard.specification.chain.as_dict()
            if any(stored[name] != getattr(chain, name) for name in ("norm", "eps", "attacks")):
                raise VerificationError(f"{chain.name}: the store's chain is not the record's")
            verdicts = shard.result(AttackResult).verdicts
            at = np.array([self._position(verdict.example) for verdict in verdicts])
            if (at >= n).any():
                raise VerificationError(f"{chain.name}: a verdict is of none of the first {n} examples")
            np.add.at(verdicts_of, at, 1)
            if (verdicts_of > 1).any():
                raise VerificationError(f"{chain.name}: an example has more than one verdict")
            fooled[at] = [verdict.fooled for verdict in verdicts]
            wrong_on_clean[at] = [verdict.attack == "clean" for verdict in verdicts]
            for verdict in verdicts:
                if verdict.rank >= 0:
                    broke[verdict.attack] = broke.get(verdict.attack, 0) + 1
                ties += verdict.tie
            self._shard(chain, shard, at)
            files.append((at, shard.result(AttackResult).files))
        where = f"{chain.name}: "
        if not verdicts_of.all():
            raise VerificationError(f"{where}{int((verdicts_of == 0).sum())} examples have no verdict")
        clean = self.record.clean_of_chains
        self._same(f"{where}robust", chain.robust, ~fooled & np.array(clean.list()))
        if "randomised" not in self.record.flags:
            # Noise that cannot be seeded is other noise in every chain.
            self._same(f"{where}clean", clean, ~wrong_on_clean)
        recorded = {part["attack"]: part["broke"] for part in chain.by_attack}
        if {name: count for name, count in recorded.items() if count} != broke:
            raise VerificationError(f"{where}the record counts {recorded} broken, the verdicts say {broke}")
        tallies = [asdict(tally) for tally in assemble.summed([shard.result(AttackResult) for shard in shards])]
        for name in ("attack", "tries", "standing", "forwards", "backwards"):
            if [part[name] for part in chain.by_attack] != [tally[name] for tally in tallies]:
                raise VerificationError(f"{where}the record's {name} by attack are not the store's")
        counted = [counts for shard in shards if (counts := shard.result(AttackResult).draws) is not None]
        drawn = None if chain.draws is None else chain.draws.model_dump()
        if drawn != (assemble.draws_record(counted[0]).model_dump() if counted else None):
            raise VerificationError(f"{where}the record's counts of draws are not the store's")
        again = [count for shard in shards if (count := shard.result(AttackResult).searched_again) is not None]
        if (chain.precision == "bf16", chain.searched_again or 0) != (bool(again), sum(again)):
            raise VerificationError(f"{where}the record's precision is not the store's")
        if ties != chain.ties:
            raise VerificationError(f"{where}the record counts {chain.ties} ties, the verdicts say {ties}")
        for name in ("forwards", "backwards"):
            spent = sum(getattr(shard.result(AttackResult).cost, name) for shard in shards)
            if spent != getattr(chain, name):
                raise VerificationError(f"{where}{getattr(chain, name)} {name} in the record, {spent} in the store")
        self._same_files(chain.name, chain.files, files, clean)

    def _shard(self, chain: ChainRecord, shard: FinishedJob, at: NDArray[np.int64]) -> None:
        """Verify the verdicts of the examples at the positions: predictions, end points and distances."""
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
        # Without a fooling try `pred` is the prediction on the clean image: wrong for `clean`, right for a survivor.
        rest = np.flatnonzero(~attacked)
        self._predictions(where, self._clean_logits(at[rest]), pred[rest])
        if (on_clean[rest] != (pred[rest] != labels[rest])).any():
            raise VerificationError(f"{where}: a clean prediction and its verdict contradict each other")
        if result.kept == "none" or result.examples is None:
            raise VerificationError(f"{where}: no end points were kept (--keep-examples none): nothing can be verified")
        if result.kept.startswith("sample"):
            raise VerificationError(f"{where}: only a sample of the end points was kept: fooled or all is needed")
        tensors = self._tensors(result.examples)
        row_of = {int(id): row for row, id in enumerate(tensors["ids"])}
        broken = np.flatnonzero(attacked)
        missing = [example[position] for position in broken if example[position] not in row_of]
        if missing:
            raise VerificationError(f"{where}: no end point for example {missing[0]}")
        rows = [row_of[example[position]] for position in broken]
        points = tensors["points"].numpy()[rows] if rows else images[:0]
        distances = admissible(where, chain.norm, chain.eps, images[broken], points)
        recorded = np.array([verdict.distance for verdict in result.verdicts])[broken]
        if not np.allclose(distances, recorded, rtol=1e-9, atol=1e-12):
            raise VerificationError(f"{where}: a recorded distance is not that of its end point")
        if (pred[broken] == labels[broken]).any():
            raise VerificationError(f"{where}: a verdict is fooled, and its prediction the label")
        self._predictions(where, self._logits(points), pred[broken])
        self.counts.points += len(rows)
        every = images.copy()
        every[broken] = points
        self._files(where, result.files, [(every, attacked)], at)

    def _crafted_set(self, record: CraftedRecord) -> None:
        """Verify a crafted set: points inside the threat, flips by the model's predictions, bits by the flips."""
        flipped = np.zeros((len(record.flips), self.record.n), dtype=bool)
        correct = np.zeros(self.record.n, dtype=bool)
        judged = np.zeros(self.record.n, dtype=int)
        files: list[tuple[NDArray[np.int64], Sequence[FileVerdicts]]] = []
        name = f"{record.attack['id']} of {record.source}"
        for judge in map(self._job, record.jobs):
            crafted = self._craft_job(judge, record)
            result = judge.result(JudgeResult)
            tensors = self._tensors(_file(crafted))
            judged_on = judge.specification
            at = np.arange(judged_on.start, judged_on.start + judged_on.examples)
            if "ids" in tensors:
                at = np.array([self._position(int(id)) for id in tensors["ids"]])
            images, labels = self._pixels(at), self.labels[at]
            sets = points_of(images, tensors)
            where = f"{name}, examples from {judge.specification.start}"
            judged[at] += 1
            if len(result.flips) != len(record.flips) or len(sets) != len(record.flips):
                raise VerificationError(
                    f"{where}: the record has {len(record.flips)} tries, the store {len(result.flips)}"
                )
            specification = crafted.specification
            threat = (specification.threat.norm, specification.threat.eps.text)
            if specification.attack.as_dict() != record.attack or threat != (record.norm, record.eps):
                raise VerificationError(f"{where}: the store's crafted set is not the record's")
            if specification.seed != self.record.seed:
                raise VerificationError(f"{where}: it was crafted with another seed than the record's")
            if specification.values.get("attacker_images", "") != record.attacker_images:
                raise VerificationError(f"{where}: the store's delta was made on other images than the record says")
            self._made_with(where, record.source, self._crafted_with(crafted))
            right = np.array(result.correct)
            self._files(where, result.files, list(zip(sets, np.array(result.flips), strict=True)), at)
            files.append((at, result.files))
            for attempt, points in enumerate(sets):
                admissible(where, record.norm, record.eps, images, points)
                flips = np.array(result.flips[attempt])
                if (flips & ~right).any():
                    raise VerificationError(f"{where}: an example that is wrong on clean counts as flipped")
                self._right(where, self._logits(points), labels, ~flips, right)
                flipped[attempt, at] = flips
            self._right(where, self._clean_logits(at), labels, right, np.ones(len(right), dtype=bool))
            correct[at] = right
            self.counts.points += len(right) * len(record.flips)
        if (judged != 1).any():
            raise VerificationError(f"{name}: {int((judged != 1).sum())} examples are not judged exactly once")
        if self.record.batch is None:
            self._same(f"{name}: clean", self.record.clean, correct)
        if self.record.batch is not None:
            # A flip counts where the chain's batch, too, has the image right.
            flipped &= np.array(self.record.clean.list())
        for attempt, bits in enumerate(record.flips):
            self._same(f"{name}, try {attempt}", bits, flipped[attempt])
        self._same_files(name, record.files, files, self.record.clean)

    def _files(
        self, where: str, files: Sequence[FileVerdicts], tries: Sequence[tuple[Array, Array]], at: NDArray[np.int64]
    ) -> None:
        """Verify what fooling points do as image files; `tries` are (points, which of them fool) of the examples at the
        positions."""
        chosen = [(number, place) for number, (_, fooling) in enumerate(tries) for place in np.flatnonzero(fooling)]
        every = np.array([place for _, place in chosen], dtype=int)
        of_any = np.logical_or.reduce([fooling for _, fooling in tries])
        for file in files:
            still, near = np.zeros(len(at), dtype=bool), np.zeros(len(at), dtype=bool)
            for start in range(0, len(every), _CHUNK):
                rows = every[start : start + _CHUNK]
                saved = [tries[number][0][place] for number, place in chosen[start : start + _CHUNK]]
                logits = self._logits(read_again(file.format, np.stack(saved)))
                still[rows[logits.argmax(1) != self.labels[at[rows]]]] = True
                near[rows[_margin(logits) < _TIE]] = True
            self._count_others(f"{where}, {file.format} files", still != np.array(file.fooling), near)
            wrong, tied = self._clean_files(file.format)
            other = (wrong[at] & of_any) != np.array(file.control)
            self._count_others(f"{where}, clean {file.format} files", other, tied[at] & of_any)

    def _clean_files(self, format: FileFormat) -> tuple[Array, Array]:
        """bool [n] each, made once: whether the clean image, saved so, is misclassified, and whether that is a tie."""
        if format not in self.clean_files:
            images = self._pixels(np.arange(self.record.n))
            logits = self._logits(read_again(format, images))
            self.clean_files[format] = logits.argmax(1) != self.labels, _margin(logits) < _TIE
        return self.clean_files[format]

    def _same_files(
        self,
        where: str,
        recorded: Sequence[FileRecord],
        shards: Sequence[tuple[NDArray[np.int64], Sequence[FileVerdicts]]],
        right: Bits,
    ) -> None:
        """Compare the record's bits about image files with the store's, given by (positions, those of a shard); `right`
        are the examples of the record's part that are correct on clean."""
        formats = [one.format for one in shards[0][1]] if all(files for _, files in shards) else []
        if [one.format for one in recorded] != formats:
            raise VerificationError(f"{where}: the record's image files are not the store's")
        clean = np.array(right.list())
        for place, record in enumerate(recorded):
            for name in ("fooling", "control"):
                bits = np.zeros(right.n, dtype=bool)
                for at, files in shards:
                    bits[at] = getattr(files[place], name)
                self._same(f"{where}, {record.format} files, {name}", getattr(record, name), bits & clean)

    def _queried(self, record: QueriedRecord) -> None:
        """Verify a query attack: the numbers of queries, the fooling points inside the threat and misclassified, and
        that the first query fools where the crafted point does at which the attack began."""
        name = f"{record.attack['id']} with {record.source}{', control' if record.is_control else ''}"
        numbers: list[int] = []
        clean = self.record.clean.list()
        control = _QUERY_CONTROLS.get(record.attack["id"])
        if control is not None and record.is_control != (record.attack.get(control[0]) == control[1]):
            raise VerificationError(f"{name}: {control[0]}={control[1]} is the control, and nothing else is")
        for job in map(self._job, record.jobs):
            result, specification = job.result(QueryResult), job.specification
            threat = (specification.threat.norm, specification.threat.eps.text)
            if specification.attack.as_dict() != record.attack or threat != (record.norm, record.eps):
                raise VerificationError(f"{name}: the store's attack is not the record's")
            if specification.seed != self.record.seed:
                raise VerificationError(f"{name}: it asked with another seed than the record's")
            if result.budget != record.budget or max(result.queries) > record.budget:
                raise VerificationError(f"{name}: the record's budget is {record.budget}, the store's is not")
            began = self._crafted_inputs(job)
            if record.start not in ([made.specification.attack.id for made in began] or [""]):
                raise VerificationError(f"{name}: it did not begin at the points of {record.start or 'no attack'}")
            of_source = "input 0" if "victim" in job.content else "input 1"
            self._made_with(name, record.source, {job.content.get("source", job.content.get(of_source))})
            numbers += result.queries
            start = specification.start
            at = np.arange(start, start + len(result.queries))
            fooled = [position for position in at if result.queries[position - start] > 0]
            right = np.array([number != 0 for number in result.queries])
            self._right(name, self._clean_logits(at), self.labels[at], right, np.ones(len(at), dtype=bool))
            if began:
                self._first_query(name, at, np.array(result.queries), began[0])
            if result.kept == "none" or result.kept.startswith("sample") or result.examples is None:
                raise VerificationError(f"{name}: not all fooling points were kept: nothing can be verified")
            tensors = self._tensors(result.examples)
            places = [self._position(int(id)) for id in tensors["ids"]]
            if places != (fooled if result.kept == "fooled" else at.tolist()):
                raise VerificationError(f"{name}: the stored points are not those of the fooled examples")
            points = tensors["points"].numpy()
            admissible(name, record.norm, record.eps, self._pixels(np.array(places, dtype=int)), points)
            wrong = np.isin(places, fooled)
            # What is kept of an example that was not fooled was asked about, and did not fool.
            asked = wrong | np.isin(places, at[right])
            self._right(name, self._logits(points), self.labels[places], ~wrong, asked)
            self.counts.points += int(wrong.sum())
        numbers = [number if ok else 0 for number, ok in zip(numbers, clean, strict=True)]
        if numbers != record.queries:
            raise VerificationError(f"{name}: the record's numbers of queries are not the store's")

    def _first_query(self, name: str, at: NDArray[np.int64], queries: NDArray[np.int64], began: FinishedJob) -> None:
        """Compare which first queries fooled with the predictions at the crafted points of the first try."""
        tensors = self._tensors(_file(began))
        row_of = {self._position(int(id)): row for row, id in enumerate(tensors["ids"])}
        if not set(at.tolist()) <= set(row_of):
            raise VerificationError(f"{name}: the crafted points that it began at are of other images")
        points = tensors["points"].numpy()[0][[row_of[int(place)] for place in at]]
        self._right(f"{name}, first query", self._logits(points), self.labels[at], queries != 1, queries != 0)

    def _craft_job(self, judge: FinishedJob, record: CraftedRecord) -> FinishedJob:
        """The crafting job whose examples a judging job read, by their hash in its key.

        Two attacks may make the same points (where the source has no gradient), one that draws nothing makes them with
        every seed: of these jobs, the record's.
        """
        found = self._crafted_inputs(judge)
        if not found:
            raise VerificationError(f"{judge.label}: the crafted set it judged is not in the store")
        alike = [job for job in found if job.specification.attack.as_dict() == record.attack]
        return next((job for job in alike if job.specification.seed == self.record.seed), [*alike, *found][0])

    def _crafted_inputs(self, job: FinishedJob) -> list[FinishedJob]:
        """The crafting jobs that made the file that a job read; none where it read none."""
        hashes = [value for name, value in job.content.items() if name.startswith("input") and value in self.crafted]
        return [made for value in hashes[:1] for made in self.crafted[value]]

    def _crafted_with(self, crafted: FinishedJob) -> set[Any]:
        """What tells the networks that may have made a set, or the set that a control was made of, from others.

        Several, where they make the same points: random signs do not depend on the network, nor do those of a delta
        that is at the bound everywhere.
        """
        of = crafted.specification.attack.as_dict().get("of")
        alike = [
            job
            for job in self.crafted[_file(crafted).sha256]
            if job.specification.attack == crafted.specification.attack
        ]
        if of is None:
            return {job.content.get("victim", job.content.get("input 0")) for job in alike}
        made = [one for job in alike for one in self._crafted_inputs(job) if one.specification.attack.id == of]
        if not made:
            raise VerificationError(f"{crafted.label}: the set of {of} that it was made of is not in the store")
        return set[Any]().union(*(self._crafted_with(job) for job in made))

    def _made_with(self, where: str, source: str, networks: set[Any]) -> None:
        """What the record says was made with one source may have been made with one network."""
        self.source_of[source] = self.source_of.get(source, networks) & networks
        if not self.source_of[source]:
            raise VerificationError(f"{where}: it was made with another network than other sets of {source}")

    def _clean_full(self, recorded: tuple[int, int]) -> None:
        """Compare the recorded (correct, n) on the whole test split with the store and the model."""
        job = self._job(self.record.clean_full_job)
        clean = job.result(CleanResult)
        if (clean.correct, clean.n) != recorded or recorded[1] != len(self.test):
            raise VerificationError("the clean accuracy on the whole split is not the store's")
        right, near = 0, 0
        for start in range(0, len(self.test), _CHUNK):
            part: Dataset = self.test.select(range(start, min(start + _CHUNK, len(self.test))))
            logits = self._logits(part.pixels.numpy())
            right += int((logits.argmax(1) == part.labels.numpy()).sum())
            near += int((_margin(logits) < _TIE).sum())
        if abs(right - recorded[0]) > near and not self._unsteady:
            raise VerificationError(
                f"{right} of {recorded[1]} are right on the whole split, the record says {recorded[0]}"
            )

    @property
    def _unsteady(self) -> bool:
        """Whether the network is flagged as one whose predictions vary from call to call."""
        return bool(_UNSTEADY & set(self.record.flags))

    def _position(self, example: int) -> int:
        """The position of an example id among the first n."""
        if example not in self.position_of:
            raise VerificationError(f"example {example} is none of the first {self.record.n}")
        return self.position_of[example]

    def _pixels(self, at: NDArray[np.int64]) -> Array:
        """The clean images at the positions, which may be none."""
        if not len(at):
            return np.zeros((0, *self.examples.shape), dtype=np.float32)
        pixels: Array = self.examples.select(torch.from_numpy(at)).pixels.numpy()
        return pixels

    def _tensors(self, file: StoredFile) -> dict[str, torch.Tensor]:
        """The tensors of an example file, whose sha256 goes into the stamp."""
        tensors = self.reader.examples(file)
        self.counts.examples[file.path] = file.sha256
        return tensors

    def _logits(self, images: Array) -> Array:
        """float32 [B, C]: the original model's logits, in batches of 37."""
        parts: list[Array] = [np.zeros((0, self.victim.num_classes), dtype=np.float32)]
        with torch.no_grad():
            for start in range(0, len(images), _BATCH):
                batch = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH])).to(self.device)
                parts.append(self.victim.model(batch).float().cpu().numpy())
        return np.concatenate(parts)

    def _clean_logits(self, at: NDArray[np.int64]) -> Array:
        """The logits of the clean images at the positions. Made once for all n: every crafted set asks for them."""
        if self.clean_logits is None:
            self.clean_logits = self._logits(self._pixels(np.arange(self.record.n)))
        return self.clean_logits[at]

    def _predictions(self, where: str, logits: Array, recorded: Array) -> None:
        """Compare the predictions with the recorded classes."""
        self._differ(where, logits, logits.argmax(1) != recorded)

    def _right(self, where: str, logits: Array, labels: Array, right: Array, rows: Array) -> None:
        """Compare, for the selected rows (bool), whether the prediction is the label with the recorded `right`."""
        self._differ(where, logits, ((logits.argmax(1) == labels) != right) & rows)

    def _differ(self, where: str, logits: Array, other: Array) -> None:
        """Count the rows whose prediction is another (`other` bool). VerificationError unless they are ties."""
        self._count_others(where, other, _margin(logits) < _TIE if len(logits) else other)

    def _count_others(self, where: str, other: Array, near: Array) -> None:
        """The same, where `near` (bool) says which rows are at a tie."""
        tied = other & near
        self.counts.changed_ties += int(tied.sum())
        self.counts.disagreements += int((other & ~tied).sum())
        if (other & ~tied).any() and not self._unsteady:
            raise VerificationError(f"{where}: {int((other & ~tied).sum())} predictions are others now")

    def _same(self, name: str, bits: Bits, expected: Array) -> None:
        """Compare the record's bits with those of the verdicts."""
        if bits.list() != expected.tolist():
            raise VerificationError(
                f"{name}: the record's bits are not the verdicts' ({bits.count}, {int(expected.sum())})"
            )


def points_of(images: Array, tensors: dict[str, Any]) -> list[Array]:
    """Per try [n, ...]: the stored points, or the images with the stored delta, clipped to [0,1]."""
    if "points" in tensors:
        return list(tensors["points"].numpy())
    return [np.clip(images + delta, np.float32(0), np.float32(1)) for delta in tensors["deltas"].numpy()]


def _file(crafted: FinishedJob) -> StoredFile:
    """The file of a finished crafting job. VerificationError when its result names none."""
    file = crafted.result(CraftResult).examples
    if file is None:
        raise VerificationError(f"{crafted.label}: the crafted set was not stored")
    return file


def _margin(logits: Array) -> Array:
    """float64 [B]: the largest logit minus the second largest, divided by the range of the logits."""
    ordered = np.sort(logits.astype(np.float64), axis=1)
    margin: Array = (ordered[:, -1] - ordered[:, -2]) / np.maximum(ordered[:, -1] - ordered[:, 0], 1e-30)
    return margin


def admissible(where: str, norm: str, eps: str, images: Array, points: Array) -> Array:
    """float64 [B]: the distances of the points from the images, both [B, ...] in [0,1] pixels.

    VerificationError for a point that is not finite, outside [0,1] or outside the ball. The tolerance is 2^-23 in Linf,
    1e-6 + 2^-24 sqrt(d) in L2, 1e-6 + 2^-24 d in L1. The limits of the threat `renofeation` are those of the normalised
    image instead of [0,1].
    """
    d = int(np.prod(points.shape[1:]))
    change = np.abs(points.astype(np.float64) - images.astype(np.float64)).reshape(len(points), d)
    if norm == "renofeation":
        _check_renofeation(where, float(Epsilon.parse(eps).value), images, points)
        return change.max(axis=1, initial=0.0)
    if norm == "Linf":
        distances, tolerance = change.max(axis=1, initial=0.0), 2.0**-23
    elif norm == "L2":
        distances, tolerance = np.sqrt(np.square(change).sum(axis=1)), 1e-6 + 2.0**-24 * float(np.sqrt(d))
    elif norm == "L1":
        distances, tolerance = change.sum(axis=1), 1e-6 + 2.0**-24 * d
    else:
        raise VerificationError(f"{where}: the threat {norm} has no independent check, so nothing can be verified")
    faults = {
        "is not finite": ~np.isfinite(points.reshape(len(points), d)).all(axis=1),
        "lies outside [0,1]": ((points < 0) | (points > 1)).reshape(len(points), d).any(axis=1),
        f"lies outside the {norm} ball of {eps}": ~(distances <= float(Epsilon.parse(eps).value) + tolerance),
    }
    for fault, rows in faults.items():
        if rows.any():
            raise VerificationError(f"{where}: end point {int(np.flatnonzero(rows)[0])} {fault}")
    return distances


def _check_renofeation(where: str, eps: float, images: Array, points: Array) -> None:
    """VerificationError for a point outside Renofeation's box: in the space of images normalised by ImageNet's mean and
    standard deviation, within eps of the image and clipped to [-2.2, 2.2]."""
    mean, std = (np.array(part).reshape(1, 3, 1, 1) for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    original, moved = (images.astype(np.float64) - mean) / std, (points.astype(np.float64) - mean) / std
    low, high = np.clip(original - eps, -2.2, 2.2), np.clip(original + eps, -2.2, 2.2)
    # 2^-22 in pixels, divided by the smallest standard deviation.
    tolerance = 2.0**-22 / 0.224
    inside = ((moved >= low - tolerance) & (moved <= high + tolerance)).reshape(len(points), -1).all(axis=1)
    if not inside.all():
        at = int(np.flatnonzero(~inside)[0])
        raise VerificationError(f"{where}: end point {at} lies outside the renofeation ball of {eps}")


def _mce(record: Record, measured: CorruptionRecord) -> str:
    """The mean over corruptions of the model's mean error over severities relative to AlexNet's on RobustBench's 5000
    images, in percent; empty where RobustBench has none (CIFAR), and on a subset of classes."""
    base, items = DatasetId.parse(record.target_dataset)
    baseline = benchmark(measured.threat, base).baseline
    if items or not baseline:
        return ""
    ratios = []
    for corruption, correct in baseline.items():
        own = np.mean([1 - part.correct.count / record.n for part in measured.parts if part.corruption == corruption])
        ratios.append(own / np.mean(1 - np.array(correct) / 5000))
    return f"{100 * float(np.mean(ratios)):.2f}"


def _table(root: Path) -> dict[str, dict[str, str]] | None:
    """The rows of leaderboard.csv by victim, or None when the file does not exist."""
    path = root / "leaderboard.csv"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    if any(line.get("victim") is None for line in lines):
        raise InputError(f"{path}: a line has no victim: write the tables anew (leaderboard {root} --rebuild)")
    return {line["victim"]: line for line in lines}


def _check_cells(record: Record, table: dict[str, dict[str, str]] | None) -> None:
    """VerificationError unless the rates in leaderboard.csv are those of the record's bits."""
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
    expected |= {f"{norm.lower()}_acc": rate(chains[norm], record.n_chains) for norm in NORMS if norm in chains}
    if all(norm in chains for norm in NORMS):
        expected["union_acc"] = rate(np.logical_and.reduce([chains[norm] for norm in NORMS]), record.n_chains)
    if "pgd20_linf" in chains:
        expected["pgd20_linf_acc"] = rate(chains["pgd20_linf"], record.n_chains)
    if record.n_chains < record.n:
        expected["n_chains"] = str(record.n_chains)
    for crafted in record.crafted:
        column = _COLUMNS.get((crafted.attack["id"], crafted.norm))
        if column is not None and crafted.source == record.source:
            counted = crafted
            if crafted.attack["id"] == "random-sign":
                # As many draws as the attack beside them has tries; the rest is for other attacks.
                beside = record.crafted_set("pretrained-neuron")
                if beside is None:
                    continue
                counted = beside
            flipped = np.logical_or.reduce([bits.list() for bits in crafted.flips[: len(counted.flips)]])
            expected[column] = rate(flipped, int(clean.sum()))
    for one in record.corruptions:
        ending = one.threat.removeprefix("corruptions")
        right = sum(part.correct.count for part in one.parts)
        expected[f"corruptions_acc{ending}"] = f"{100 * right / (len(one.parts) * record.n):.2f}"
        expected[f"corruptions_mce{ending}"] = _mce(record, one)
    for column, value in expected.items():
        if row.get(column, "") != value:
            raise VerificationError(f"leaderboard.csv says {column} = {row.get(column, '')}, the verdicts give {value}")

"""What somebody else's attack did to a victim of a folder: adversarial points, judged here, or a table of verdicts,
which stays a claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transferbench import data, threats
from transferbench.base import atomic_files, full_precision, registry
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.results import AttackResult
from transferbench.base.specifications import Epsilon, ThreatModel, parse_norm
from transferbench.data import Dataset, View
from transferbench.engine.judge import Judge
from transferbench.leaderboard.comparison import VictimSeries
from transferbench.leaderboard.external import Judged
from transferbench.models import victims
from transferbench.models.victim import Victim
from transferbench.results import external
from transferbench.results.external import ExternalEvaluation
from transferbench.results.records import Bits, Record, read_all
from transferbench.store.reader import Reader
from transferbench.workflows import compared_verdicts
from transferbench.workflows.point_files import read_points, size_text

VARYING = {"randomised", "state-between-calls", "mixes-rows"}
"""Flags of networks whose answers depend on more than the image."""
_PART = 256


class Author(NamedTuple):
    """Whose evaluation it is, where it is described, and the robust accuracy that it claims, in percent."""

    name: str
    link: str = ""
    claimed: float | None = None


class Locations(NamedTuple):
    """Where data and weights are, and the device that judges."""

    data_dir: Path | None = None
    model_dir: Path | None = None
    device: str = "cpu"


HERE = Locations()


def import_points(
    folder: Path, victim: str, threat: ThreatModel, file: Path, author: Author, places: Locations = HERE
) -> ExternalEvaluation:
    """Judge a file of adversarial points and write the evaluation to the folder.

    The file (point_files.py) has the points of the first N examples of the test split in its order, N at least the
    record's n. A point that is not finite, outside [0,1] or outside the ball counts as no attack. InputError for
    another file, other weights or data, and a victim whose answers vary.
    """
    record = _record(folder, victim)
    if record.stratified:
        raise InputError(f"{victim}: its examples are the classes in turn, a file has the data set's own order")
    varying = sorted(VARYING & set(record.flags))
    if varying:
        raise InputError(f"{victim}: flagged {', '.join(varying)}: its answers to a file of points vary")
    points = read_points(file)
    model = _victim(folder, record, places)
    images = _images(record, model, len(points), places)
    if points.shape[1:] != images.shape:
        raise InputError(f"{file}: points of {size_text(points.shape[1:])}, the images are {size_text(images.shape)}")
    full_precision.switch_on()
    right, fooled, outside = _judged(model, threat, images, points)
    n = record.n_chains
    now, then = sum(right[:n]), record.clean_of_chains.count
    if abs(now - then) > max(1, n // 100):
        raise InputError(f"{victim}: {now} of {n} clean images are right here, {then} in the record")
    return _written(
        folder,
        record,
        author,
        norm=parse_norm(threat.norm),
        eps=threat.eps.text,
        evidence="points",
        fooled=Bits.of([hit and ok for hit, ok in zip(fooled[:n], record.clean_of_chains.list(), strict=True)]),
        inadmissible=sum(outside[:n]),
        whole=(sum(ok and not hit for ok, hit in zip(right, fooled, strict=True)), len(points)),
        sha256=atomic_files.sha256_of(file),
    )


def import_verdicts(folder: Path, victim: str, threat: ThreatModel, file: Path, author: Author) -> ExternalEvaluation:
    """Read a table of one victim's verdicts (docs/protocol.md, Comparing) and write the claim to the folder of its run.

    InputError where it is of other examples than the run, or has no chain of the norm.
    """
    record = _record(folder, victim)
    norm = parse_norm(threat.norm)
    # The run's own verdicts come from its store, by the examples' ids, as the table's do.
    claimed, own = (next(iter(one.seeds.values())) for one in _together(folder, file, victim))
    if (claimed.n, claimed.examples) != (own.n, own.examples):
        raise InputError(f"{file}: verdicts on other examples than the run's, or in another order")
    if norm not in claimed.columns:
        raise InputError(f"{file}: {registry.unknown('chain', norm, claimed.columns)}")
    # Tables are ordered by the examples' ids as text, records as the data set is.
    ids = _ids(folder, record)
    place_of = {id: place for place, id in enumerate(sorted(ids))}
    robust = [bool(claimed.columns[norm][place_of[id]]) for id in ids]
    return _written(
        folder,
        record,
        author,
        norm=norm,
        eps=threat.eps.text,
        evidence="verdicts",
        fooled=Bits.of([ok and not kept for ok, kept in zip(record.clean_of_chains.list(), robust, strict=True)]),
        sha256=atomic_files.sha256_of(file),
    )


def _together(folder: Path, file: Path, victim: str) -> list[VictimSeries]:
    """The victim in the table, and in the run's store."""
    return compared_verdicts.load([f"{file}:{victim}", f"{folder}:{victim}"])


def _ids(folder: Path, record: Record) -> list[str]:
    """The ids of the record's examples, in its order, from the run's store."""
    jobs = [job for key in record.chains[0].jobs if (job := Reader(folder).job(key)) is not None]
    ids = [str(verdict.example) for job in jobs for verdict in job.result(AttackResult).verdicts]
    if len(ids) != record.n_chains:
        raise InputError(f"{record.victim}: its verdicts are not in the store of {folder}")
    return ids


def _written(folder: Path, record: Record, author: Author, **fields: Any) -> ExternalEvaluation:
    evaluation = ExternalEvaluation(
        victim=record.victim,
        weights_sha256=record.weights_sha256,
        data_fingerprint=record.data_fingerprint,
        by=author.name,
        link=author.link,
        claimed=author.claimed,
        **fields,
    )
    external.write(folder, evaluation)
    return evaluation


def describe(folder: Path, evaluation: ExternalEvaluation) -> str:
    """What was found, in a line: the rate, the claim, our own chain's, and what was left out."""
    judged = Judged(_record(folder, evaluation.victim), evaluation)
    n, ours, best = judged.record.n_chains, judged.own, judged.best_known
    if evaluation.evidence == "verdicts":
        text = f"{evaluation.victim}: {judged.robust.percent} % robust of n = {n}, a claim: no point was judged"
    else:
        text = (
            f"{evaluation.victim}: {judged.robust.percent} % robust of n = {n}, by its points as they are judged here"
        )
    text += "" if evaluation.claimed is None else f"; claimed {evaluation.claimed:.2f} %"
    text += "" if ours is None else f"; our own chain {ours.percent} %"
    text += "" if best is None else f"; best known {best.percent} %"
    if evaluation.inadmissible:
        text += f"; {evaluation.inadmissible} points lie outside the ball or the box and count as no attack"
    return text


def _record(folder: Path, victim: str) -> Record:
    records = {record.victim: record for record in read_all(folder)}
    if victim not in records:
        raise InputError(registry.unknown("victim", victim, records))
    if records[victim].stratified:
        raise InputError(
            f"{victim}: it was attacked on the classes in turn, a file of points is in the data set's order"
        )
    return records[victim]


def threat_of(folder: Path, victim: str, norm: str, eps: str) -> ThreatModel:
    """The threat of an import: without `eps` that of the record's own chain of the norm."""
    if eps:
        return ThreatModel(parse_norm(norm), Epsilon.parse(eps))
    chain = _record(folder, victim).chain(parse_norm(norm))
    if chain is None:
        raise InputError(f"{victim}: the record has no chain {norm}: give the radius with --eps")
    return ThreatModel(chain.norm, Epsilon.parse(chain.eps))


def _victim(folder: Path, record: Record, places: Locations) -> Victim:
    """The network with the record's weights: of the run's folder, else the public one of its name."""
    trained = folder / "victims" / file_stem(record.victim)
    try:
        victim = victims.load(str(trained) if trained.is_dir() else record.victim, places.model_dir)
    except InputError as error:
        raise InputError(
            f"{record.victim}: its weights are needed to judge points, in {trained} or by name ({error})"
        ) from None
    if victim.sha256 != record.weights_sha256:
        raise InputError(f"{record.victim}: the weights have sha256 {victim.sha256[:12]}..., not the record's")
    return victim.to(places.device)


def _images(record: Record, victim: Victim, count: int, places: Locations) -> Dataset:
    """The first `count` test images, of which the record's n must be the first."""
    view = View.of(victim.card.preprocessing, victim.card.input_shape)
    test = data.load(record.target_dataset, "test", places.data_dir, view)
    if count < record.n or count > len(test):
        raise InputError(
            f"{count} points: give those of the first {record.n} (the record's n) to {len(test)} test examples"
        )
    if test.first(record.n).fingerprint != record.data_fingerprint:
        raise InputError(f"data set {record.target_dataset}: other images than the record's")
    return test.select(range(count)).on(places.device)


def _judged(
    victim: Victim, threat: ThreatModel, images: Dataset, points: Tensor
) -> tuple[list[bool], list[bool], list[bool]]:
    """Per example: right on clean, wrong at an admissible point, and whether the point is inadmissible."""
    judge, rules = Judge(victim.model), threats.build(threat)
    right: list[bool] = []
    fooled: list[bool] = []
    outside: list[bool] = []
    for start in range(0, len(points), _PART):
        part = images.select(range(start, min(start + _PART, len(points))))
        x, y = part.pixels, part.labels
        z = points[start : start + _PART].to(x.device)
        met = torch.stack([condition.met for condition in rules.admissible(x, z).conditions]).all(0)
        correct = torch.eq(judge.logits(x, part.ids).argmax(1), y)
        # The judge is never asked about a point that is no image.
        wrong = torch.ne(judge.logits(torch.where(met.view(-1, 1, 1, 1), z, x), part.ids).argmax(1), y)
        right += correct.tolist()
        fooled += (correct & met & wrong).tolist()
        outside += (~met).tolist()
    return right, fooled, outside

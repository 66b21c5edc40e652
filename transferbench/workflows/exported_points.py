"""The adversarial points of a run as files that others judge: what RobustBench asks for in an external evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from transferbench import data
from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.results import AttackResult
from transferbench.base.specifications import NORMS
from transferbench.data import View
from transferbench.leaderboard.tables import table
from transferbench.results.records import ChainRecord, Record
from transferbench.store.reader import STORE, FinishedJob, Reader

FOLDER = "exports/points"


README = """# Adversarial points

Each file is a float32 tensor [n, C, H, W] in [0,1] for `torch.load`, in the data set's order: the point that fools,
else the clean image. A model's accuracy on it, against the labels of the same test examples, must be the number beside
it. RobustBench's external evaluations want the whole test set.

"""
_HEADER = ("file", "data set", "images", "norm", "eps", "test examples", "robust accuracy, %")


def write(folder: Path, records: Sequence[Record], data_dir: Path | None = None) -> list[Path]:
    """Write exports/points/<victim>-<norm>.pt for every victim and norm of a run's folder, and README.md with the
    number that each must give. Returns the files.

    A file is a float32 tensor [n, C, H, W] of the first n test examples in the data set's order: the point where the
    chain fooled the victim, else the clean image. README.md says where n is not the whole test set. InputError where
    the folder has no store, or not all fooling points were kept.
    """
    if not (folder / STORE).is_file():
        raise InputError(f"{folder}: a board has no points: give the folder of its run")
    reader, paths, lines = Reader(folder), [], []
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    victims = [record for record in records if record.role == "victim"]
    for record, chain in ((record, record.chain(norm)) for record in victims for norm in NORMS):
        if chain is None:
            continue
        points, whole = _points(reader, record, chain, data_dir)
        path = folder / FOLDER / f"{file_stem(record.victim)}-{chain.norm}.pt"
        atomic_files.write(path, partial(torch.save, points))
        paths.append(path)
        n = record.sample_of(chain.robust.n)
        n = f"{chain.robust.n}" if chain.robust.n == whole and not record.stratified else f"{n} of {whole}"
        accuracy = f"{100 * chain.robust.count / chain.robust.n:.2f}"
        lines.append([path.name, record.target_dataset, record.images, chain.norm, chain.eps, n, accuracy])
    readme = folder / FOLDER / "README.md"
    atomic_files.write_text(readme, README + table(_HEADER, lines, 5) + "\n")
    return [*paths, readme]


def _points(reader: Reader, record: Record, chain: ChainRecord, data_dir: Path | None) -> tuple[Tensor, int]:
    """(the points of the examples that the chain attacked, the size of the test split)."""
    jobs = [job for job in map(reader.job, chain.jobs) if job is not None]
    if len(jobs) < len(chain.jobs):
        raise InputError(f"{record.victim}: {chain.name} is not in the store of this folder")
    test = data.load(record.target_dataset, "test", data_dir, View.parse(jobs[0].specification.preprocessing))
    examples = test.first(record.n, bool(record.stratified))
    if examples.fingerprint != record.data_fingerprint:
        raise InputError(f"data set {record.target_dataset}: other images than the record's")
    examples = examples.select(range(chain.robust.n))
    points, place_of = examples.pixels.clone(), {int(id): place for place, id in enumerate(examples.ids)}
    for job in jobs:
        for id, point in _fooling(reader, job):
            points[place_of[id]] = point
    return points, len(test)


def _fooling(reader: Reader, job: FinishedJob) -> list[tuple[int, Tensor]]:
    """(example id, point) of what the chain fooled in one shard."""
    result = job.result(AttackResult)
    fooled = {verdict.example for verdict in result.verdicts if verdict.rank >= 0}
    if result.examples is None or result.kept not in ("fooled", "all"):
        raise InputError(f"{job.label}: not all fooling points were kept (--keep-examples fooled keeps them)")
    tensors = reader.examples(result.examples)
    rows = zip(tensors["ids"].tolist(), tensors["points"], strict=True)
    return [(id, point) for id, point in rows if id in fooled]

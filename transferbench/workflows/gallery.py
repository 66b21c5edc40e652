"""A run's example galleries: the first adversarial examples of each norm, from the stored end points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transferbench.base import atomic_files
from transferbench.base.names import file_stem
from transferbench.base.results import AttackResult
from transferbench.base.specifications import NORMS, Norm
from transferbench.data import Dataset
from transferbench.jobs.job import Results
from transferbench.leaderboard import example_gallery
from transferbench.scheduling.plan import Evaluation, distinct
from transferbench.store.reader import read_examples

_COLUMNS = 8
_Picture = tuple[example_gallery.Cell, NDArray[np.float32], NDArray[np.float32]]


def write(root: Path, evaluation: Evaluation, results: Results, examples: Dataset) -> None:
    """Write the gallery of one victim, or remove it where no adversarial example was found or kept."""
    pictures: list[_Picture] = []
    for norm in NORMS:
        shards = distinct([results.of(job) for job in evaluation.chains.get(norm, []) if job.name in results])
        for column, picture in zip(range(_COLUMNS), _pictures(root, norm, shards, examples), strict=False):
            cell, clean, adversarial = picture
            pictures.append((cell.model_copy(update={"column": column}), clean, adversarial))
    path = root / example_gallery.FOLDER / f"{file_stem(evaluation.victim)}.png"
    if pictures:
        path.parent.mkdir(exist_ok=True)
        atomic_files.write_bytes(path, example_gallery.draw(pictures))
    else:
        path.unlink(missing_ok=True)


def _pictures(root: Path, norm: Norm, shards: Sequence[AttackResult], examples: Dataset) -> Iterator[_Picture]:
    """Every stored adversarial example of a chain, in the examples' order."""
    position = {int(id): at for at, id in enumerate(examples.ids)}
    for result in shards:
        if result.examples is None:
            continue
        tensors = read_examples(root, result.examples)
        row_of = {int(id): row for row, id in enumerate(tensors["ids"])}
        for verdict in result.verdicts:
            if verdict.rank < 0 or verdict.example not in row_of:
                continue
            example = examples.select([position[verdict.example]])
            cell = example_gallery.Cell(
                norm=norm,
                column=0,
                example=verdict.example,
                label=examples.classes[int(example.labels[0])],
                pred=examples.classes[verdict.pred],
                attack=verdict.attack,
                distance=float(f"{verdict.distance:.6g}"),
                gain=0,
            )
            clean, adversarial = example.pixels[0].numpy(), tensors["points"][row_of[verdict.example]].numpy()
            yield cell, clean.astype(np.float32), adversarial.astype(np.float32)

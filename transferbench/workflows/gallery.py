"""Results of a run -> strips/<victim>.png: the first examples that fell in each norm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from transferbench.base import atomic_files
from transferbench.base.names import file_stem
from transferbench.base.specifications import NORMS
from transferbench.data import Dataset
from transferbench.leaderboard import example_gallery
from transferbench.scheduling.plan import Measured
from transferbench.store.reader import read_examples

_COLUMNS = 8


def write(root: Path, measured: Measured, results: Mapping[str, dict[str, Any]], examples: Dataset) -> None:
    """The strip of one victim; none where nothing fell, or where no end points were kept."""
    place = {int(id): at for at, id in enumerate(examples.ids)}
    found: list[tuple[example_gallery.Cell, Any, Any]] = []
    for norm in (norm for norm in NORMS if norm in measured.chains):
        column = 0
        for job in measured.chains[norm]:
            result = results.get(job.name, {})
            if column == _COLUMNS or "examples" not in result:
                continue
            tensors, verdicts = read_examples(root, result["examples"]), result["verdicts"]
            row_of = {int(id): row for row, id in enumerate(tensors["ids"])}
            for at, example in enumerate(verdicts["example"]):
                if column == _COLUMNS or verdicts["rank"][at] < 0 or example not in row_of:
                    continue
                one = examples.select([place[example]])
                cell = example_gallery.Cell(
                    norm=norm,
                    column=column,
                    example=example,
                    label=examples.classes[int(one.labels[0])],
                    pred=examples.classes[verdicts["pred"][at]],
                    attack=verdicts["attack"][at],
                    distance=float(f"{verdicts['distance'][at]:.6g}"),
                    gain=0,
                )
                clean, moved = one.pixels[0].numpy(), tensors["points"][row_of[example]].numpy()
                found.append((cell, clean.astype(np.float32), moved.astype(np.float32)))
                column += 1
    path = root / "strips" / f"{file_stem(measured.name)}.png"
    if found:
        path.parent.mkdir(exist_ok=True)
        atomic_files.write_bytes(path, example_gallery.draw(found))
    else:
        path.unlink(missing_ok=True)

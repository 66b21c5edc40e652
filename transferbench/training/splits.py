"""Loads the training and validation examples of a training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.data import Dataset, View, few_shot
from transferbench.data.overlap import without

_LOG = logging.getLogger(__name__)

Splits = tuple[Dataset, Dataset | None]
"""Training images, and validation images where some are kept apart."""
Validation = Literal["tenth", "none"]


def load_splits(
    dataset: str,
    root: Path | None = None,
    view: View | None = None,
    shots: int | None = None,
    seed: int = 0,
    validation: Validation = "tenth",
    shots_rule: few_shot.Rule = "keyed",
) -> Splits:
    """(training split, validation split). Validation images that equal a test image are removed.

    With `shots` the training split has that many examples per class, drawn by the seed, or with `shots_rule`
    `renofeation` those that Renofeation's code draws, which has no validation images. With `validation=none` the
    training split has the validation images as well, and there is no other. InputError when the two splits share an
    example.
    """
    few_shot.check(dataset, shots_rule, shots, validation)
    train, val = data.load(dataset, "train", root, view), data.load(dataset, "val", root, view)
    if set(train.ids.tolist()) & set(val.ids.tolist()):
        raise InputError(f"data set {dataset}: training and validation splits share examples")
    if validation == "none":
        whole = train.joined(val)
        if shots is not None and shots_rule == "renofeation":
            return few_shot.drawn(dataset, whole, root, view, shots), None
        return (whole if shots is None else whole.shots(shots, seed)), None
    try:
        test = data.load(dataset, "test", root, view)
    except InputError as error:
        # A training does not need the test images.
        _LOG.info("validation images are not compared with test images: %s", error)
    else:
        val = without(val, test)
    return (train if shots is None else train.shots(shots, seed)), val

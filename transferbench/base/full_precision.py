"""float32 that is float32: TensorFloat-32 and bfloat16, which torch may use inside float32 operations, switched off;
convolutions on a GPU by deterministic algorithms.

torch lets cuDNN's convolutions use TF32 on recent GPUs. With it a row's logits differ by 1e-3 of their range from batch
to batch, and verdicts with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_PLACES = ("cudnn.conv", "cudnn.rnn", "cuda.matmul", "mkldnn.conv", "mkldnn.rnn", "mkldnn.matmul")


def _switches() -> list[tuple[Any, str, Any]]:
    """(object, attribute, value for full precision) of every switch that this version of torch has."""
    found: list[tuple[Any, str, Any]] = []
    for place in _PLACES:
        library, operation = place.split(".")
        holder = getattr(getattr(torch.backends, library), operation, None)
        if hasattr(holder, "fp32_precision"):
            found.append((holder, "fp32_precision", "ieee"))
    # Versions before 2.9 have these alone; mixing both kinds is an error.
    legacy: list[tuple[Any, str, Any]] = [
        (torch.backends.cudnn, "allow_tf32", False),
        (torch.backends.cuda.matmul, "allow_tf32", False),
    ]
    # The same bits from the same batch, where cuDNN has such an algorithm.
    return [*(found or legacy), (torch.backends.cudnn, "deterministic", True)]


def switch_on() -> None:
    """For the rest of the process."""
    for holder, name, value in _switches():
        setattr(holder, name, value)


@contextmanager
def full_precision() -> Iterator[None]:
    """Within the block; afterwards the caller's settings hold again."""
    before = [(holder, name, getattr(holder, name)) for holder, name, _ in _switches()]
    switch_on()
    try:
        yield
    finally:
        for holder, name, value in before:
            setattr(holder, name, value)

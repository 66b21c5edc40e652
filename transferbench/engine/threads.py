"""How many threads torch takes: as many as it has, or one where that is faster.

On a busy machine torch's threads wait for one another, and several are slower than one by far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from transferbench.engine.gradients import outputs

_PASSES = 3


@contextmanager
def fastest_threads(network: Callable[[Tensor], Tensor], sample: Tensor) -> Iterator[int]:
    """Within the block torch takes one thread where a few passes of `sample` [B, ...] are faster so and have the same
    bits; yields the number. Afterwards, and for a network on a GPU, it is as before."""
    before = torch.get_num_threads()
    if before == 1 or sample.device.type != "cpu":
        yield before
        return
    try:
        (many, first), (one, second) = _timed(network, sample, before), _timed(network, sample, 1)
        is_equal = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        chosen = 1 if is_equal and one < many else before
        torch.set_num_threads(chosen)
        yield chosen
    finally:
        torch.set_num_threads(before)


def _timed(network: Callable[[Tensor], Tensor], sample: Tensor, threads: int) -> tuple[float, tuple[Tensor, Tensor]]:
    """(seconds of the fastest pass, logits and gradients)."""
    torch.set_num_threads(threads)
    seconds = []
    for _ in range(_PASSES):
        began = time.perf_counter()
        found = outputs(network, sample)
        seconds.append(time.perf_counter() - began)
    return min(seconds), found

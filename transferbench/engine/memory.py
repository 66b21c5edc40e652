"""The rows in flight: by a GPU's free memory, halved when memory runs out. Verdicts do not depend on them (pool.py)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from transferbench.base.errors import FaultError
from transferbench.engine.gradients import outputs

_LOG = logging.getLogger(__name__)
_CPU = ("DefaultCPUAllocator: ", "not enough memory")

_SHARE = 0.5
"""The share of a GPU's free memory that rows in flight may take."""
_LEAST, _MOST = 64, 2048
"""More rows waste more passes of tries that are cancelled; whether they are faster was not measured."""

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is an out-of-memory error of CUDA, of the CPU allocator or of Python."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU)


def rows_that_fit(network: Callable[[Tensor], Tensor], sample: Tensor) -> int:
    """The rows in flight for images like `sample` [B, ...] on a GPU: a power of two, by its free memory.

    The memory of a pass is that of one of the sample; an attack holds a dozen tensors of a row's size beside it.
    """
    device = sample.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    outputs(network, sample)
    each = (torch.cuda.max_memory_allocated(device) - before) / len(sample) + 12 * 4 * sample[0].numel()
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    fitting = max(1, int(_SHARE * (free + unused) / each))
    return min(_MOST, max(_LEAST, 1 << (fitting.bit_length() - 1)))


class Rows:
    """The batch size: at most `most` rows per pass, never fewer than `floor`; `halvings` counts the reductions."""

    def __init__(self, most: int, floor: int) -> None:
        self.most, self.floor, self.halvings = max(most, floor), floor, 0

    def within_memory(self, work: Callable[[int], T]) -> T:
        """`work(most)`, repeated with half the rows whenever memory runs out. FaultError below the floor."""
        while True:
            try:
                return work(self.most)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = (str(error).strip() or "out of memory").splitlines()[0]
            # Outside the except clause: the traceback holds references to the failed pass's tensors.
            self._halve(reason)

    def _halve(self, reason: str) -> None:
        if self.most <= self.floor:
            raise FaultError(f"out of memory with {self.most} rows at once, and fewer are not enough: {reason}")
        self.most = max(self.most // 2, self.floor)
        self.halvings += 1
        _LOG.warning("out of memory (%s): going on with %d rows at once", reason, self.most)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

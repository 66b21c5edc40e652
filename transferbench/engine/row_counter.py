"""Counts the rows that pass through a network outside the search, for the cost of the pre-flight."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class RowCounter:
    """Calls the network and counts in `rows` the rows of its forward passes and of its backward passes."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network, self.rows = network, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        output = self.network(x)
        # The caller refuses an output that is not a tensor.
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda _: self._add(len(x)))
        return output

    def _add(self, rows: int) -> None:
        self.rows += rows

"""Rows through a network outside the search: what the pre-flight costs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class Counted:
    """The network, unchanged, and the `rows` that went through it: forwards, and backwards where one was made."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network, self.rows = network, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        output = self.network(x)
        # What is no tensor is refused by who asked.
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda _: self._backward(len(x)))
        return output

    def _backward(self, rows: int) -> None:
        self.rows += rows

"""Counts the rows that a training sends through its networks, forward and backward."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from transferbench.base.results import TrainingPasses


class PassCounter:
    """Rows through the counted networks: `forwards`, and `backwards` of the outputs that a gradient was taken at.

    A backward pass counts as one however far it goes: to the images, to all weights, or to a head alone.
    """

    def __init__(self, passes: TrainingPasses | None = None) -> None:
        self.passes = passes or TrainingPasses(0, 0)
        self.handles: list[RemovableHandle] = []

    def count(self, model: nn.Module) -> None:
        """Count the passes of a network, and of copies of it that are made afterwards: `deepcopy` copies hooks."""

        def forward(_: nn.Module, __: Any, output: Tensor) -> None:
            rows = len(output)
            self._add(rows, 0)
            if output.requires_grad:
                output.register_hook(lambda _: self._add(0, rows))

        self.handles.append(model.register_forward_hook(forward))

    def _add(self, forwards: int, backwards: int) -> None:
        self.passes = TrainingPasses(self.passes.forwards + forwards, self.passes.backwards + backwards)

    def remove(self) -> None:
        """Count no longer."""
        for handle in self.handles:
            handle.remove()

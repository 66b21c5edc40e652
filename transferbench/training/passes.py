"""Counts the rows that a training sends through its networks, forward and backward."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from transferbench.base.results import TrainingPasses
from transferbench.methods import Network
from transferbench.models.features import submodule


class PassCounter:
    """Rows through the counted networks: `forwards`, and `backwards` where a gradient went through the features or the
    output.

    A backward pass counts as one however far it goes: to the images, to all weights, or to a head alone.
    """

    def __init__(self, passes: TrainingPasses | None = None) -> None:
        self.passes = passes or TrainingPasses(0, 0)
        self.handles: list[RemovableHandle] = []

    def count(self, network: Network) -> None:
        """Count the passes of a network, and of copies of it that are made afterwards: `deepcopy` copies hooks."""
        features: list[Tensor] = []

        def before(_: nn.Module, __: Any) -> None:
            features.clear()

        def before_head(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            features[:] = inputs[:1]

        def after(_: nn.Module, __: Any, output: Tensor) -> None:
            rows = len(output)
            self._add(rows, 0)
            # A loss may be of features alone. Where the network is frozen they have no gradient, but the output may.
            reached = next((one for one in (*features, output) if one.requires_grad), None)
            features.clear()
            if reached is not None:
                reached.register_hook(lambda _: self._add(0, rows))

        model, head = network.model, network.layers.head
        self.handles += [model.register_forward_pre_hook(before), model.register_forward_hook(after)]
        if head:
            self.handles.append(submodule(model, head).register_forward_pre_hook(before_head))

    def _add(self, forwards: int, backwards: int) -> None:
        self.passes = TrainingPasses(self.passes.forwards + forwards, self.passes.backwards + backwards)

    def remove(self) -> None:
        """Count no longer."""
        for handle in self.handles:
            handle.remove()

"""Networks for tests on workers: one that takes its worker's process with it, and one that does not."""

from __future__ import annotations

import os
import signal

import torch
from torch import Tensor, nn

from transferbench.models.networks import small_resnet


class Deadly(nn.Module):
    """Kills the process that asks it, if that is a dask worker."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Flatten(), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        from distributed import get_worker

        try:
            get_worker()
        except ValueError:
            return self.head(self.features(x))
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def deadly() -> nn.Module:
    torch.manual_seed(0)
    return Deadly().eval()


def harmless() -> nn.Module:
    torch.manual_seed(0)
    return small_resnet.build("small-resnet", 10).model.eval()


for made in (deadly, harmless):
    made.input_shape = (1, 8, 8)  # type: ignore[attr-defined]
    made.classes = 10  # type: ignore[attr-defined]
    made.fingerprint = made.__name__  # type: ignore[attr-defined]

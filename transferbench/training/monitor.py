"""The robustness monitor: E-AT's fast evaluation during a training, every few epochs (`--eval-freq`).

robust-finetuning's `eval_norms_fast` (Croce and Hein 2022, arXiv:2105.12508): APGD on the cross-entropy from the clean
image, 100 iterations, one try, on the first 200 training and 200 validation images; an image is robust when no iterate
fools the network. It is no result: it is weaker than the chains, and no choice depends on it.
Deviation: that code takes 200 test images; here they are validation images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from transferbench.attacks import lockstep
from transferbench.attacks.apgd_train import IN_EVALUATION, apgd_train
from transferbench.base import keyed_random
from transferbench.data import Dataset

N, N_ITER = 200, 100


@dataclass(frozen=True)
class RobustnessMonitor:
    """Measures every `every` epochs, at the radii of `threats` (norm -> eps as text)."""

    train: Dataset
    val: Dataset
    threats: Mapping[str, str]
    every: int
    n: int = N
    n_iter: int = N_ITER

    def measure(self, network: nn.Module, device: torch.device | str) -> dict[str, float]:
        """Accuracies (shares) by name, `train clean`, `val Linf`, ...; the network's modes are restored."""
        accuracies = {}
        for name, split in (("train", self.train), ("val", self.val)):
            part = split.select(range(min(self.n, len(split)))).on(device)
            with lockstep.eval_mode(network) as attacked:
                with torch.no_grad():
                    correct = attacked(part.pixels).argmax(1).eq(part.labels)
                accuracies[f"{name} clean"] = float(correct.float().mean())
                for norm, eps in self.threats.items():
                    attack = apgd_train(norm, eps, self.n_iter, IN_EVALUATION)
                    # Nothing is drawn: the start is the clean image.
                    noise = keyed_random.row_keys(0, part.ids)
                    hit = lockstep.maximise(attack, attacked, part.pixels, part.labels, noise).fooled
                    accuracies[f"{name} {norm}"] = float((~hit).float().mean())
        return accuracies

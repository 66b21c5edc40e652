"""The robustness monitor: E-AT's fast evaluation during a training, every few epochs (`--eval-freq`).

robust-finetuning's `eval_norms_fast` (Croce and Hein 2022, arXiv:2105.12508): APGD on the cross-entropy from the clean
image, 100 iterations, one try, on the first 200 training and 200 validation images; an image is robust when no iterate
fools the network. It is weaker than the chains, and no record and no choice uses it.
Deviation: that code uses 200 test images instead of validation images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from transferbench.attacks import lockstep
from transferbench.attacks.apgd_train import IN_EVALUATION, apgd_train
from transferbench.base import keyed_random
from transferbench.base.specifications import ThreatModel
from transferbench.data import Dataset

N, N_ITER = 200, 100


@dataclass(frozen=True)
class RobustnessMonitor:
    """Measures accuracies every `every` epochs on the first `n` images of each split, at the radii of `threats`.

    `n_iter` is the number of APGD iterations.
    """

    train: Dataset
    val: Dataset
    threats: Sequence[ThreatModel]
    every: int
    n: int = N
    n_iter: int = N_ITER

    def measure(self, network: nn.Module, device: torch.device | str) -> dict[str, float]:
        """The accuracies in [0, 1] by name: `train clean`, `val Linf`, ... The network's modes are restored."""
        accuracies = {}
        for name, split in (("train", self.train), ("val", self.val)):
            part = split.select(range(min(self.n, len(split)))).on(device)
            with lockstep.eval_mode(network) as attacked:
                with torch.no_grad():
                    correct = attacked(part.pixels).argmax(1).eq(part.labels)
                accuracies[f"{name} clean"] = float(correct.float().mean())
                for threat in self.threats:
                    attack = apgd_train(threat, self.n_iter, IN_EVALUATION)
                    # Unused, because the start is the clean image.
                    noise = keyed_random.row_keys(0, part.ids)
                    fooled = lockstep.maximise(attack, attacked, part.pixels, part.labels, noise).fooled
                    accuracies[f"{name} {threat.norm}"] = float((~fooled).float().mean())
        return accuracies

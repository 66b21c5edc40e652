"""Single-norm adversarial fine-tuning with APGD: E-AT's loop with one norm.

It moves a network that is robust in one norm to another.

Paper: Croce and Hein 2022 (arXiv:2105.12508); robust-finetuning with `--l_norms` of one entry.
Loss: as `eat`, with one norm.
Phases: one, all weights.
Presets: `fft-5`, `fft-50` and `lp-50` are the protocols of the Guide to Robust Generalization (arXiv:2508.14079) with
classic adversarial training. It searches rates, decays and schedules for each network, rotates images and changes their
colours; here they are fixed, and images are cropped and flipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from transferbench.base.errors import InputError
from transferbench.methods import eat

VERSION = 2

IDS = {
    "fft-5": "FFT-5 of the Guide: adversarial training of all weights, 5 epochs",
    "fft-50": "FFT-50 of the Guide: adversarial training of all weights, 50 epochs",
    "lp-50": "LP-50 of the Guide: adversarial training of the head alone, 50 epochs",
}
GUIDE = {
    "batch_size": 1024,
    "lr": 3e-4,
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "decay": "weights",
    "crop_padding": "auto",
    "optimiser": "adamw",
    "beta2": 0.95,
    "new_head": "yes",
}
"""What arXiv:2508.14079 has in common. Rates and decays it searches for, in [1e-6, .1] and [1e-6, .01]: these are about
the middles. An epoch is 7 batches, as Caltech-101's 6200 training images make."""
PRESETS = {
    "fft-5": {**GUIDE, "l_eps": "4/255", "steps": 35},
    "fft-50": {**GUIDE, "l_eps": "4/255", "steps": 350},
    "lp-50": {**GUIDE, "l_eps": "4/255", "steps": 350, "tune": "head"},
}


@dataclass(frozen=True)
class Params(eat.Params):
    """E-AT's fine-tuning; `l_norms` and `l_eps` name one norm and its radius."""

    l_norms: str = "Linf"
    l_eps: str = "8/255"

    def __post_init__(self) -> None:
        """InputError as eat, and for more than one norm."""
        super().__post_init__()
        if "," in self.l_norms:
            raise InputError(f"apgd-at takes one norm, l_norms={self.l_norms!r} names several: use eat")


class Method(eat.Method):
    """E-AT's loop with exactly one norm."""

    extends = "madry"

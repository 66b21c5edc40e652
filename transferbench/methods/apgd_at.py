"""Single-norm adversarial fine-tuning with APGD: E-AT's loop with one norm.

It moves a network that is robust in one norm to another.

Paper: Croce and Hein 2022 (arXiv:2105.12508); robust-finetuning with `--l_norms` of one entry.
Loss: as `eat`, with one norm.
Phases: one, all weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from transferbench.base.errors import InputError
from transferbench.methods import eat

VERSION = 2


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

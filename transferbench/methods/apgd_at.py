"""Single-norm adversarial fine-tuning with APGD: E-AT's loop with one norm.

It moves a network that is robust in one norm to another.

Paper: Croce and Hein 2022 (arXiv:2105.12508); robust-finetuning with `--l_norms` of one entry.
Loss: as `eat`, with one norm.
Phases: one, all weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transferbench.base.errors import InputError
from transferbench.methods import Network, eat

VERSION = 1


@dataclass(frozen=True)
class Params(eat.Params):
    """E-AT's fine-tuning; `l_norms` and `l_eps` name one norm and its radius."""

    l_norms: str = "Linf"
    l_eps: str = "8/255"


class Method(eat.Method):
    """E-AT's loop with exactly one norm."""

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        student = super().student(source, fresh, num_classes)
        if len(self.attacks) != 1:
            raise InputError(
                f"apgd-at takes one norm, l_norms={self.params.l_norms!r} names {len(self.attacks)}: use eat"
            )
        return student

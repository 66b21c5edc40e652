"""SAT: adversarial training in one norm a batch, drawn uniformly.

Paper: a baseline of E-AT's paper (Croce and Hein 2022, arXiv:2105.12508), after Madaan et al. 2021 (arXiv:2002.11242)
without their noise generator.
Loss: as `eat`, with equally likely norms.
Phases: one, all weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from transferbench.methods import eat

VERSION = 2


@dataclass(frozen=True)
class Params(eat.Params):
    """E-AT's optimiser and attack, all three norms."""

    l_norms: str = "Linf,L2,L1"
    l_eps: str = "8/255,0.5,12"


class Method(eat.Method):
    """E-AT with equal probabilities of the norms."""

    extends = "apgd-at"

    def weights(self) -> list[float]:
        return [1.0] * len(self.attacks)

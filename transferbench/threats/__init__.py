"""What an attacker may do to an image: one class per file, behind the interface of `threat.py`.

A file of this folder lists its threat in a literal `IDS = {"id": "one line"}` and has `build(eps: Epsilon) -> Threat`.
`ThreatModel` (base/specifications.py) names a threat in suites, records and keys; `build` returns the object that
computes with it. Results are verified without this package: results/verification.py has its own arithmetic.
"""

from __future__ import annotations

from functools import cache

from transferbench.base import registry
from transferbench.base.specifications import ThreatModel
from transferbench.threats.l1 import L1Ball
from transferbench.threats.l2 import L2Ball
from transferbench.threats.linf import LinfBall
from transferbench.threats.lp_ball import LpBall
from transferbench.threats.renofeation import RenofeationBox
from transferbench.threats.threat import Admissibility, BoundedThreat, Condition, Threat

__all__ = [
    "Admissibility",
    "BoundedThreat",
    "Condition",
    "L1Ball",
    "L2Ball",
    "LinfBall",
    "LpBall",
    "RenofeationBox",
    "Threat",
    "build",
]


@cache
def build(spec: ThreatModel) -> BoundedThreat:
    """The threat of a specification, an immutable object that equal ones share. InputError for an unknown name."""
    threat: BoundedThreat = registry.find("threats", spec.norm).load().build(spec.eps)
    return threat

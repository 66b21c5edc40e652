"""Ids that records, tables and plans agree on, and how names are composed of them."""

from __future__ import annotations

PRETRAINED_NEURON = "pretrained-neuron"
"""Attack that holds the source alone: drives its penultimate neurons one by one."""
SOURCE_PGD = "source-pgd"
"""Attack that holds the source alone: PGD against its own prediction."""
RANDOM_SIGN = "random-sign"
"""The noise control of attacks that hold the source alone."""
SHUFFLED, OTHER_IMAGE, SPECTRUM = "shuffled", "other-image", "spectrum"
"""Controls that are made of a crafted set (engine/controls.py)."""
CONTROLS = (RANDOM_SIGN, SHUFFLED, OTHER_IMAGE, SPECTRUM)
L1_SCREEN = "l1-screen"
"""The short attack that precedes an L1 chain."""
APGD_CE = "apgd-ce"
APGD_T = "apgd-t"
FAB_T = "fab-t"
SQUARE = "square"
PGD20 = "pgd20_linf"
"""The chain of Madry's PGD-20, beside those named after their norm."""
PGD10 = "pgd10_linf"
"""Likewise PGD-10."""

RENOFEATION = "renofeation"
"""The threat of Renofeation's own evaluator."""


def with_seed(name: str, seed: int) -> str:
    """The id of a network that is trained once per seed."""
    return f"{name}-s{seed}"


def without_seed(name: str, seed: int) -> str:
    """The inverse of `with_seed`; a name that does not end in that seed stays as it is."""
    return name.removesuffix(f"-s{seed}")


def chain_at(norm: str, eps: str) -> str:
    """The name of a norm's chain at a further radius of its curve."""
    return f"{norm}@{eps}"

"""A report that several files look at."""

from __future__ import annotations

import pytest
from support.nets import Small

import transferbench


@pytest.fixture(scope="session")
def report(small: Small) -> transferbench.Report:
    """Two threats, and an attacker who holds the network itself as the source."""
    x, y = small.x[:30], small.y[:30]
    threats = {"Linf": "0.06", "L2": 0.25}
    return transferbench.evaluate(small.model, x, y, threats, "pgd", n_iter=3, source=small.model)

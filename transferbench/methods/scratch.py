"""The source's architecture trained from scratch on the target: what transfer must beat.

Loss: CE.
Phases: one, all weights.
"""

from __future__ import annotations

from transferbench.methods import natural

VERSION = 2

Params = natural.Params


class Method(natural.Method):
    """Natural training; of a source only the architecture is used."""

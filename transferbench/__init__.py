"""transferbench: is a network that was fine-tuned from a public one robust, and against whom?

report = transferbench.evaluate(model, x, y, threats={"Linf": "8/255", "L2": 0.5, "L1": 12})
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferbench.api import evaluate
    from transferbench.python.datasets import load_dataset
    from transferbench.python.example_plans import plan_n
    from transferbench.python.models import load_model
    from transferbench.python.report import Report
    from transferbench.python.run_results import read_results
    from transferbench.python.suite_runs import run
    from transferbench.python.trainings import train
    from transferbench.python.victim_comparisons import compare

__version__ = _version("transferbench")
_MODULES = {
    "Report": "python.report",
    "compare": "python.victim_comparisons",
    "evaluate": "api",
    "load_dataset": "python.datasets",
    "load_model": "python.models",
    "plan_n": "python.example_plans",
    "read_results": "python.run_results",
    "run": "python.suite_runs",
    "train": "python.trainings",
}
"""The module of each public name."""
__all__ = [
    "Report",
    "__version__",
    "compare",
    "evaluate",
    "load_dataset",
    "load_model",
    "plan_n",
    "read_results",
    "run",
    "train",
]


def __getattr__(name: str) -> Any:
    # Torch is imported when something is evaluated, not when a name is asked for.
    if name in _MODULES:
        return getattr(importlib.import_module(f"transferbench.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'transferbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

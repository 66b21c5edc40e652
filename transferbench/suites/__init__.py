"""Suites: YAML files that define what is measured, their schema and their reader."""

from __future__ import annotations

from transferbench.suites.files import available, load, parse
from transferbench.suites.schema import (
    Attack,
    NamedChain,
    Protocol,
    Source,
    SourceOnly,
    Suite,
    SuiteRow,
    Training,
)

__all__ = [
    "Attack",
    "NamedChain",
    "Protocol",
    "Source",
    "SourceOnly",
    "Suite",
    "SuiteRow",
    "Training",
    "available",
    "load",
    "parse",
]

"""How far `verify` is: a line on standard error before each record."""

from __future__ import annotations

import sys
import time

from transferbench.base.durations import duration
from transferbench.base.printable_text import printable
from transferbench.results.records import Record


class VerificationProgress:
    """Says what is verified now and how long the rest may take, by the time of the examples that are verified."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def begin(self, record: Record, number: int, total: int) -> None:
        """A record's verification begins; `number` counts from 0."""
        spent = time.monotonic() - self._began
        left = f", about {duration(spent / number * (total - number))} left" if number else ""
        chains = len(record.chains) + len(record.crafted)
        line = f"[{number + 1}/{total}] verifying {record.victim}: {record.n} examples, {chains} measurements{left}"
        print(printable(line), file=sys.stderr, flush=True)

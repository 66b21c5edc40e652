"""How far `verify` is: a line on standard error after each record."""

from __future__ import annotations

import sys
import time

from transferbench.base.durations import duration
from transferbench.base.printable_text import printable
from transferbench.cli import console
from transferbench.results.records import Record
from transferbench.results.verification import VerificationCounts


class VerificationProgress:
    """Says what is verified and how long the rest may take, by the time of the records that are verified."""

    def __init__(self, place: str) -> None:
        self._place, self._began, self._done, self._total = place, time.monotonic(), 0, 0

    def begin(self, total: int) -> None:
        """The verification of so many records begins."""
        self._total = total
        self._say(f"verifying {total} records, {self._place}")

    def verified(self, record: Record, counts: VerificationCounts) -> None:
        """A record was verified."""
        console.print_verified(record, counts)
        self._done += 1
        left = (time.monotonic() - self._began) / self._done * (self._total - self._done)
        if self._done < self._total:
            self._say(f"[{self._done}/{self._total}] {record.victim} is verified, about {duration(left)} left")

    @staticmethod
    def _say(line: str) -> None:
        print(printable(line), file=sys.stderr, flush=True)

"""How far `evaluate` is: a bar where somebody looks at it, lines every half minute elsewhere (a log file, a pipe)."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transferbench.workflows.evaluate_model import ChainProgress

EVERY = 30.0
"""Seconds between two lines."""


class _Silent:
    """Reports nothing."""

    def of(self, name: str, n: int) -> None:
        return None


class _Lines:
    """Lines on stderr, at most one in half a minute."""

    def __init__(self, resumable: bool) -> None:
        self.hint = "" if resumable else " (nothing is kept if it is stopped: store=FOLDER makes it resumable)"
        self.shown = time.monotonic()

    def of(self, name: str, n: int) -> Callable[[int, int], None]:
        def report(settled: int, robust: int) -> None:
            if time.monotonic() - self.shown >= EVERY:
                self.shown = time.monotonic()
                print(f"{name}: {settled} attacked, {robust} of {n} not fooled{self.hint}", file=sys.stderr, flush=True)
                self.hint = ""

        return report


class _Bar:
    """One bar over the examples of all chains, with the present chain's name and how many are not fooled."""

    def __init__(self, bar: Any) -> None:
        self.bar, self._settled = bar, dict[str, int]()

    def of(self, name: str, n: int) -> Callable[[int, int], None]:
        for other in self._settled:
            if other != name:
                # Examples that were wrong before any attack are never reported as attacked.
                self._settled[other] = n
        self._settled.setdefault(name, 0)

        def report(settled: int, robust: int) -> None:
            self._settled[name] = settled
            self.bar.set_description(name, refresh=False)
            self.bar.set_postfix_str(f"{robust} of {n} not fooled", refresh=False)
            self.bar.update(sum(self._settled.values()) - self.bar.n)

        return report


@contextmanager
def chain_progress(wanted: bool, resumable: bool, total: int) -> Iterator[ChainProgress]:
    """What reports progress within the block; `total` are the examples of all chains, `resumable` says whether a
    stopped evaluation can be continued."""
    if not wanted:
        yield _Silent()
    elif sys.stderr is not None and (sys.stderr.isatty() or in_notebook()):
        with _tqdm()(total=total, unit="example", file=sys.stderr, dynamic_ncols=True) as bar:
            yield _Bar(bar)
            bar.update(total - bar.n)
    else:
        yield _Lines(resumable)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _tqdm() -> Any:
    with warnings.catch_warnings():
        # Without ipywidgets a notebook shows the bar as text, which is no reason for a warning.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm

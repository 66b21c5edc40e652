"""A run as a process of its own that is stopped from outside, for tests of what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def stop_run(
    folder: Path,
    options: list[str],
    how: int,
    until: Callable[[str], bool],
    workers_of: Callable[[psutil.Process], list[psutil.Process]],
) -> int:
    """Run tiny.yaml of the folder into its `out`, and stop it after the first line of progress for which `until` holds.

    By SIGINT to the whole group, as Ctrl-C in a terminal, or by SIGKILL to the driver alone. Asserts that it ends as it
    should, without a traceback, and that no worker outlives it. Returns how many workers there were.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "transferbench.cli", "run", "tiny.yaml", "--out", "out", *options],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test session in the background ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if until(line):
            break
    workers = workers_of(psutil.Process(process.pid))
    if how == signal.SIGINT:
        os.killpg(process.pid, how)
    else:
        process.kill()
    rest = process.stderr.read() if how == signal.SIGINT else ""
    assert process.wait(60) == (130 if how == signal.SIGINT else -how), rest
    assert "Traceback" not in rest, rest
    deadline = time.monotonic() + 30
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline, "workers outlive their driver"
        time.sleep(0.2)
    return len(workers)

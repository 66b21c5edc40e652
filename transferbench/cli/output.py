"""Standard output and standard error: one place that lets any text through, on any terminal."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from transferbench.base.printable_text import printable


def prepare() -> None:
    """Characters that the terminal's encoding lacks are escaped (`mod\\xe8le`), instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print to standard output; control characters of names and cards do not reach the terminal."""
    print(printable(text))


def flush() -> None:
    """Write what is buffered, so that a full disk behind `>` is a message and not Python's last words."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def discard(stream: TextIO) -> None:
    """Send what is still in the stream's buffer nowhere: its reader has gone, or its disk is full."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return

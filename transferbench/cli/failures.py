"""Exceptions as one line: whether the input or something else was wrong, what to print, the exit status."""

from __future__ import annotations

import errno
import re
import sqlite3
from pathlib import Path
from typing import NamedTuple

from transferbench.base.errors import FaultError, InputError
from transferbench.base.printable_text import printable

LONGEST = 2000
"""Characters of a message, at most."""
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PACKAGE = Path(__file__).parent.parent


class Failure(NamedTuple):
    """`kind` is `error` for bad input, `fault` for everything else."""

    kind: str
    message: str
    status: int


def failure(error: BaseException) -> Failure:
    """What to print about an exception. Any exception has an answer."""
    if isinstance(error, InputError):
        return Failure("error", str(error), 2)
    if isinstance(error, FaultError):
        return Failure("fault", str(error), 1)
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return Failure("fault", "out of memory: a smaller --batch-size needs less; finished jobs are kept", 1)
    if isinstance(error, OSError):
        return Failure("fault", _of_system(error), 1)
    if isinstance(error, UnicodeError):
        return Failure("fault", f"text that cannot be read or written as {_encoding(error)}: {error}", 1)
    if isinstance(error, sqlite3.Error):
        return Failure("fault", f"the store cannot be used ({error}): finished jobs are kept", 1)
    if isinstance(error, RecursionError):
        return Failure("fault", f"something is nested too deeply{_place(error)}; {_HOW}", 1)
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Failure("fault", f"internal error ({reason}{_place(error)}); {_HOW}", 1)


_HOW = "--debug (or TRANSFERBENCH_DEBUG=1) shows the traceback"


def one_line(message: str) -> str:
    """The message without line breaks and control characters, of limited length."""
    line = re.sub(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+\s*", " ", message.strip())
    return printable(line if len(line) <= LONGEST else f"{line[:LONGEST]}...")


def _of_system(error: OSError) -> str:
    """`<path>: <reason>` with what to do about a disk."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    what = ": ".join([*names, error.strerror or str(error) or type(error).__name__])
    return f"{what}: free disk space, the same command goes on from there" if error.errno in _DISK else what


def _encoding(error: UnicodeError) -> str:
    return str(getattr(error, "encoding", "text"))


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether torch says so, which is not imported for it."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _place(error: BaseException) -> str:
    """`, methods/lwf.py:12`: the last line of this package that the exception went through."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(_PACKAGE):
            place = f", {file.relative_to(_PACKAGE)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place

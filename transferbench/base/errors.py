"""The two errors that a user can cause or meet, each reported in one line. Any other exception is a bug."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input. One line: what was wrong and what to do. The command line prints it and exits with 2."""


class FaultError(RuntimeError):
    """Something that would make a number wrong (a NaN logit, a point outside its ball). Never caught to go on."""

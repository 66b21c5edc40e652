"""Where a command runs: the line that says so, and the settings with it."""

from __future__ import annotations

import sys

from transferbench.base.settings import RunSettings


def placed(settings: RunSettings, device: str | None, workers: int | None, default: str = "auto") -> RunSettings:
    """The settings with the place where jobs run; what is used is printed."""
    from transferbench.workflows import settings as settings_check

    settings, text = settings_check.placed(settings, device, workers, default)
    print(text, file=sys.stderr, flush=True)
    return settings

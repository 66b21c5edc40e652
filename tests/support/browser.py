"""A headless browser for the page, and boards to show in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from support.records import three
from transferbench.results.records import Record

ROOT = Path(__file__).parents[2]


BOARD = ROOT / "leaderboards" / "letters-to-digits"


Browser = Any


def program(*names: str) -> str | None:
    return next((found for name in names if (found := shutil.which(name)) is not None), None)


CHROMIUM, DRIVER = program("chromium", "chromium-browser", "google-chrome"), program("chromedriver")


with_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no chromium with its chromedriver here (Debian: chromium chromium-driver)",
)


def started() -> Browser:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1400,1000"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(str(DRIVER)))


def thousand() -> list[Record]:
    base = three()[1]
    # Each of its own suite: ranks are formed within one, over all pairs.
    return [base.model_copy(update={"victim": f"v{k:04d}-s0", "suite": f"s{k:04d}"}) for k in range(1000)]

"""The README's picture of the page: `make screenshot`, or with the folder of a board and a file."""

from __future__ import annotations

import sys
from pathlib import Path

from support.browser import BOARD, CHROMIUM, DRIVER, ROOT, started


def main(board: Path, picture: Path) -> None:
    """The top of a board's index.html in its light theme, 1420 x 760."""
    if CHROMIUM is None or DRIVER is None:
        sys.exit("no chromium and chromedriver here (Debian: chromium chromium-driver)")
    browser = started()
    try:
        size = {"width": 1420, "height": 760, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get((board / "index.html").resolve().as_uri())
        browser.save_screenshot(str(picture))
    finally:
        browser.quit()
    from PIL import Image

    with Image.open(picture) as image:
        image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(picture, optimize=True)


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    main(*(given + [BOARD, ROOT / "docs" / "page.png"][len(given) :]))

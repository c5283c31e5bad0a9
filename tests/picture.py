"""Takes the README's picture of the page.

python cli.py index --demo --index demo
python tests/picture.py demo docs/images/page.png
"""

from __future__ import annotations

import sys

from playwright.sync_api import sync_playwright
from served_page import ARGUMENTS, Tab, chromium, serving

QUERY = "wait until a thread has finished"


def main(index: str, picture: str) -> None:
    """Serve an index and save what a query to it looks like."""
    with serving(index) as address, sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        tab = Tab(browser, address, viewport={"width": 1280, "height": 800})
        page = tab.open(q=QUERY)
        page.locator(".facet").first.wait_for()
        page.locator(".brand").hover()
        page.screenshot(path=picture)
        tab.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

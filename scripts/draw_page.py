"""Pictures of the demo run's page, as the README shows it: python scripts/draw_page.py results/demo/page.html

Needs Chromium and Playwright, which `make browser` installs. `make demo` writes the page.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

PICTURES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("page.png", {"viewport": {"width": 1320, "height": 830}, "color_scheme": "light"}),
    ("page-phone.png", {"viewport": {"width": 400, "height": 860}, "color_scheme": "dark"}),
)


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, nargs="?", default=Path("results/demo/page.html"))
    parser.add_argument("--episode", default="demo-0-010-close_drawer-success")
    parser.add_argument("--time", default="3.5", help="s")
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    chosen = parser.parse_args()
    with sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox"] if os.geteuid() == 0 else [],  # root has none
        )
        for name, options in PICTURES:
            page = browser.new_page(device_scale_factor=1.5, **options)
            page.goto(f"{chosen.page.resolve().as_uri()}#episode={chosen.episode}&t={chosen.time}")
            page.locator("#views label", has_text="progress").click()
            page.wait_for_timeout(1500)  # the film shows its frame
            page.screenshot(path=chosen.output / name)
            print(f"drawn to {chosen.output / name}")
        browser.close()


if __name__ == "__main__":
    main()

"""Take the README's picture of a report: its head, its table and its learning curves.

python docs/screenshot.py REPORT.html OUTPUT.png
"""

import shutil
import sys
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
OPTIONS += ("--disable-component-update", "--disable-sync")
WIDTH = 1280


def main(report: str, output: str) -> None:
    """Open the report in a browser without a window and keep what stands above the second plot."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        sys.exit("error: a screenshot needs the package playwright: pip install playwright")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"error: a screenshot needs a browser: found none of {', '.join(BROWSERS)}")
    if not Path(report).is_file():
        sys.exit(f"error: there is no file {report}")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=[*OPTIONS])
        page = opened.new_page(viewport={"width": WIDTH, "height": 2000}, color_scheme="light")
        page.goto(Path(report).resolve().as_uri())
        last = page.locator("#curves, #seeds").first
        last.locator(".plot .main-svg").first.wait_for()
        box = last.bounding_box()
        page.screenshot(
            path=output, clip={"x": 0, "y": 0, "width": WIDTH, "height": round(box["y"] + box["height"] + 16)}, full_page=True
        )
        opened.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

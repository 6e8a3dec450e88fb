"""Make docs/pictures/caught.png, the picture in the README: the page about a bug that is caught.

python -m bench.make_picture

Chromium draws it, by playwright; the page is that of the README's own command, down to its maps.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright

from fastcheck.cli.command import run

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "caught.png"
COMMAND = ("--layers", "64-100-100-10", "--plant", "derivative_missing@1", "--quiet")
WIDTH = 1200
# The table of blocks is in the README as text, what unfolds can't be unfolded in a picture, and
# captions that a reader of the page may need are too much for a first look.
LEFT_OUT = (
    "#blocks, .map details, .mend ~ .mend, .mend ~ .mend + pre, h2 + p.dim, ol + p.dim "
    "{ display: none }"
)
COMPACT = "section { margin: 1.5rem 0 !important } header { padding: 1rem 0 1.25rem !important }"


def main() -> None:
    """Write the page, draw it, and cut it below its maps."""
    with TemporaryDirectory() as folder:
        page_file = Path(folder) / "report.html"
        run([*COMMAND, "--html", str(page_file)])
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        draw(page_file.read_text(encoding="utf-8"))
    print(f"{PICTURE.name}: {PICTURE.stat().st_size / 1000:.0f} kB")


def draw(text: str) -> None:
    """Draw a page from its top to the end of its maps."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        page = browser.new_page(
            viewport={"width": WIDTH, "height": 900}, color_scheme="light", reduced_motion="reduce"
        )
        page.set_content(text)
        page.add_style_tag(content=LEFT_OUT + COMPACT)
        maps = page.locator(".maps").bounding_box()
        assert maps is not None, "the page has no maps"
        height = maps["y"] + maps["height"] + 24
        page.screenshot(
            path=PICTURE,
            full_page=True,
            clip={"x": 0, "y": 0, "width": WIDTH, "height": height},
        )
        browser.close()


if __name__ == "__main__":
    main()

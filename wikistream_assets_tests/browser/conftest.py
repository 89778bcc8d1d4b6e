"""Headless Chromium, and where its screenshots go.

Screenshots are kept in pytest's temporary folder; the variable ``SCREENSHOTS`` names another one.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP *.example 127.0.0.1",  # names that nobody has, as a foreign page's
)  # fmt: skip


@pytest.fixture
def page() -> Iterator[Page]:
    if _CHROMIUM is None:
        pytest.skip("no Chromium: install it (Debian: apt-get install chromium) to run the browser tests")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=list(_QUIET))
        yield browser.new_page(viewport={"width": 1600, "height": 900})
        browser.close()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    # Not a setting: it is for whoever looks at the pictures, the pipeline knows nothing of it.
    folder = Path(os.environ.get("SCREENSHOTS", str(tmp_path)))
    folder.mkdir(parents=True, exist_ok=True)
    return folder

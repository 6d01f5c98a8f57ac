"""Pages in a real browser, light and dark, on a desk, a phone and paper."""

from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_core_python.selenium import Axe  # type: ignore[import-untyped]
from selenium.webdriver import Chrome

from tests.stories.test_ui import BROWSER, DRIVER, browser, screen

DESK, PHONE = 1280, 390  # pixels


@pytest.fixture(scope="session")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    if not (BROWSER and DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    folder = tmp_path_factory.mktemp("chrome")
    (folder / "empty.html").touch()
    with browser((folder / "empty.html").as_uri(), folder / "profile") as driver:
        yield driver


@pytest.fixture
def looked_at(chrome: Chrome, tmp_path: Path) -> Callable[[str], None]:
    """Look at a page as people do, and leave a picture of each way."""

    def look(html: str) -> None:
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        for scheme in ("light", "dark"):
            for width in (DESK, PHONE):
                screen(chrome, scheme, width)
                chrome.get(path.as_uri())
                where = f"{scheme}, {width} pixels"
                assert chrome.execute_script("return document.documentElement.scrollWidth") <= width, where
                violations = Axe().run(chrome)["violations"]
                assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == [], where
                shot = chrome.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
                (tmp_path / f"{scheme}-{width}.png").write_bytes(b64decode(shot["data"]))
        chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        try:
            chrome.execute_cdp_cmd("Page.reload", {})
            printed = b64decode(chrome.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
        finally:
            chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        assert printed.startswith(b"%PDF")
        assert len(printed) > 20_000  # bytes; one empty sheet has a thousand
        (tmp_path / "page.pdf").write_bytes(printed)

    return look


def stands_alone(html: str) -> bool:
    """Whether a page refers to nothing outside of itself and runs nothing, and can be sent by mail."""
    refers = any(word in html for word in ("src=", "href=", "url(", "@import", "<link", "<iframe"))
    runs = any(word in html for word in ("<script", "javascript:", " onload=", " onclick="))
    return not refers and not runs and len(html.encode()) < 1_000_000

"""Draw docs/img/report-light.png and -dark.png anew, the top of a batch's page: python -m docs.report.

It trains on the sample in a temporary folder, and looks at the page in Chromium.
"""

from base64 import b64decode
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conftest import one_batch
from tests.stories.test_ui import browser
from understudy.report import page

WIDTH, HEIGHT = 1120, 800  # pixels


def draw(report: Path, folder: Path) -> None:
    """Put both pictures of a batch's page beside the others; the browser keeps its profile in an empty folder."""
    images = Path(__file__).with_name("img")
    images.mkdir(exist_ok=True)
    with browser(report.as_uri(), folder) as driver:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        for scheme in ("light", "dark"):
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {})
            (images / f"report-{scheme}.png").write_bytes(b64decode(shot["data"]))


def main(folder: Path) -> None:
    """Train in an empty folder, and draw what comes of it."""
    one_batch(folder)
    draw(folder / "plots" / page.FILE, folder / "profile")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        main(Path(folder))

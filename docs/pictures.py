"""Draw docs/compare.png anew, MLflow's page that compares the families of a batch: python -m docs.pictures.

It trains on the sample in a temporary folder, and looks at that in Chromium as tests/stories/test_ui.py does. What the
picture shows is written to docs/pictures.json as digests, so that a test can tell when it has become old.
"""

import hashlib
import json
from base64 import b64decode
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.version import VERSION

from tests.conftest import PROJECT, one_batch
from tests.stories.test_ui import browser, compare, see, served_ui
from understudy.table import TABLE
from understudy.tracking import family_runs

WIDTH = 1440  # pixels of the picture
DIGESTS = Path(__file__).with_name("pictures.json")
# Of each picture, the files that decide what is to be seen on it.
TRAINED = ("data/loans.csv", "understudy/table.py", "understudy/families.py", "understudy/figures/plots.py")
SOURCES = {"compare.png": ("docs/pictures.py", *TRAINED)}


def digests(picture: str) -> dict[str, str]:
    """The SHA-256 of a picture and of what it shows, by path, and the version of MLflow."""
    files = (f"docs/{picture}", *SOURCES[picture])
    return {"MLflow": VERSION} | {name: hashlib.sha256((PROJECT / name).read_bytes()).hexdigest() for name in files}


def main(folder: Path) -> None:
    """Train in an empty folder, and put the picture beside this script."""
    one_batch(folder)
    store = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(store)
    batch = family_runs.get_batch(client, TABLE)
    runs = {family_runs.family_name(run): run for run in family_runs.families(client, batch)}
    with served_ui(store) as address, browser(address, folder / "profile") as driver:
        page = f"{address}/#/experiments/{batch.info.experiment_id}/runs?workflowType=machine_learning"
        compare(driver, page, batch, runs)
        first, last = (see(driver, "[role=button]", name).rect for name in ("Parameters", "Artifacts"))
        x, y = first["x"] - 10, first["y"] - 10
        clip = {"x": x, "y": y, "width": driver.get_window_size()["width"] - x - 14, "height": last["y"] + 620 - y}
        clip["scale"] = WIDTH / clip["width"]
        shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        Path(__file__).with_name("compare.png").write_bytes(b64decode(shot["data"]))


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        main(Path(folder))
    DIGESTS.write_text(json.dumps({picture: digests(picture) for picture in SOURCES}, indent=2) + "\n")

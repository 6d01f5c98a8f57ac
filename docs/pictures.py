"""Draw the pictures in docs/img anew, what people look at in a browser: python -m docs.pictures.

It trains, promotes, serves and monitors on the sample in a temporary clone, and looks at that in Chromium, in light and
in dark. The pictures and what they show are written to docs/pictures.json as digests, so that a test can tell when they
have become old.
"""

import hashlib
import json
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from urllib.parse import quote

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.version import VERSION
from selenium.webdriver import Chrome

import monitor
import promote
import register
import train
from tests.conftest import PROJECT, connected
from tests.serving.conftest import Live, served, until
from tests.serving.test_pages import ask
from tests.stories.test_loop import send
from tests.stories.test_ui import browser, screen, see, served_ui, visit
from understudy import errors
from understudy.families import FAMILIES
from understudy.monitoring import record
from understudy.registry import records
from understudy.report import page
from understudy.table import TABLE
from understudy.tracking import connection, experiments, family_runs

WIDTH, HEIGHT = 1280, 860  # pixels of a picture
WIDE = 1600  # of MLflow's pages: in less, the texts above a version's card lie over one another
LOW = 620  # of pages with a short table
QUIET = 4  # looks at a page that find the same
SCHEMES = ("light", "dark")
FOLDER = Path(__file__).with_name("img")
DIGESTS = Path(__file__).with_name("pictures.json")
DARK = "_mlflow_dark_mode_toggle_enabled"  # where MLflow's UI keeps the choice
NAMES = ("runs", "batch", "compare", "version", "promotions", "gate", "monitoring", "report", "try", "docs")
PICTURES = [f"{name}-{scheme}.png" for name in NAMES for scheme in SCHEMES]
# What decides what is to be seen. Folders are whole, so that no file of theirs is forgotten.
SOURCES = (
    "data/loans.csv",
    "docs/pictures.py",
    "understudy/families.py",
    "understudy/figures/*.py",
    "understudy/pages/*.py",
    "understudy/pages/static/*",
    "understudy/report/*.py",
    "understudy/report/templates/*",
    "understudy/registry/records.py",
    "understudy/table.py",
    "understudy/tracking/experiments.py",
    "understudy/tracking/family_runs.py",
    "understudy/training/evaluation.py",
)
# The families that are registered one after the other, and what is said when each is to take over.
STORY = {
    "LogisticRegression": (),
    "DecisionTreeClassifier": (),
    "RandomForestClassifier": ("--reason", "fewer good customers lost"),
}


def can_be_told() -> bool:
    """Whether the table and the families are still those of the story."""
    return TABLE.name == "Loan_prediction" and STORY.keys() <= FAMILIES.keys()


def digests() -> dict[str, str]:
    """The SHA-256 of all pictures and of what they show, by path, and the version of MLflow."""
    files = sorted(path for pattern in (*SOURCES, "docs/img/*.png") for path in PROJECT.glob(pattern))
    found = {str(path.relative_to(PROJECT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {"MLflow": VERSION} | found


def does(script: ModuleType, *arguments: str) -> None:
    """Run a script in this process; a refusal is part of the story."""
    sys.argv = [str(script.__file__), *arguments]
    try:
        errors.run(script.main)
    except SystemExit as end:
        if end.code not in (0, 3):
            raise


def tell(folder: Path, store: str, look_at: Callable[[Live], None]) -> None:
    """Train, have a tree refused and a forest promoted, answer the table's rows, and see what came true of them."""
    rows, log = pd.read_csv(folder / TABLE.path, dtype={"Dependents": str}), str(folder / "kept")
    does(train)
    for family, given in STORY.items():
        does(register, "--model", family)
        does(promote, "staging")
        does(promote, "production", *given)
    with served(folder, store) as live:  # what is asked for a picture is no row of the log's
        until(lambda: live.version() == "3")
        look_at(live)
    with served(folder, store, "--log", log) as live:
        until(lambda: live.version() == "3")
        send(live, rows)
    rows[[TABLE.row_id, TABLE.target.name]].to_csv(folder / "labels.csv", index=False)
    does(monitor, "--log", log, "--labels", str(folder / "labels.csv"))


def frame(driver: Chrome, scheme: str, width: int = WIDTH, height: int = HEIGHT) -> None:
    """Let the pages that are opened next be as large as their picture, and have no scrollbars."""
    screen(driver, scheme, width, height)
    driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})


def shot(driver: Chrome) -> str:
    """What the browser shows, as base64."""
    return str(driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"])


def draw(driver: Chrome, name: str, scheme: str) -> None:
    """Write what the browser shows as a picture."""
    (FOLDER / f"{name}-{scheme}.png").write_bytes(b64decode(shot(driver)))


def draw_pages(driver: Chrome, live: Live, report: Path, scheme: str) -> None:
    """The live server's two pages, and the report of a batch."""
    frame(driver, scheme)
    for name, address in (("try", ""), ("docs", "docs")):
        driver.get(f"http://127.0.0.1:{live.port}/{address}")
        see(driver, "label" if name == "try" else "h2")
        if name == "try":
            ask(driver)
        draw(driver, name, scheme)
    draw_report(driver, "report", report, scheme)


def draw_report(driver: Chrome, name: str, report: Path, scheme: str) -> None:
    """A page that the project has written."""
    driver.get(report.as_uri())
    see(driver, "svg")
    draw(driver, name, scheme)


def settle(driver: Chrome) -> None:
    """Wait until a page has looked the same for two seconds; what it has yet to load moves."""
    shots: list[str] = []
    while len(shots) < QUIET or len({*shots[-QUIET:]}) > 1:
        time.sleep(0.5)
        shots.append(shot(driver))


def draw_ui(driver: Chrome, address: str, client: MlflowClient, scheme: str) -> None:
    """The pages of MLflow's UI that the project leads to."""

    def opened(name: str, url: str, sight: tuple[str, str], click: str = "", height: int = HEIGHT) -> None:
        frame(driver, scheme, WIDE, height)
        visit(driver, url)
        see(driver, "body.dark-mode" if scheme == "dark" else "body:not(.dark-mode)")
        see(driver, *sight)
        if click:
            see(driver, "button, [role=button], .du-bois-light-collapse-header", click).click()
        settle(driver)
        draw(driver, name, scheme)

    driver.get(address)  # what is kept is kept for the server whose page is open
    driver.execute_script("localStorage.setItem(arguments[0], arguments[1])", DARK, json.dumps(scheme == "dark"))
    batch = family_runs.get_batch(client, TABLE).info
    training, decisions = batch.experiment_id, _named(client, records.experiment(TABLE.name))
    opened("runs", f"{address}/{_view(training)}", ("[role=gridcell]", "LogisticRegression"), height=LOW)
    page_of_batch = f"{address}/{connection.link(f'experiments/{training}/runs/{batch.run_id}')}"
    opened("batch", page_of_batch, ("main a", "their ROC curves"), "Show more")
    families = str(see(driver, "main a", "Compare the families").get_attribute("href"))
    opened("compare", families, ("h1, h2, h3", "Comparing 3 Runs"), "Visualizations", HEIGHT + 360)
    version = connection.link(f"models/{quote(TABLE.name)}/versions/3")
    opened("version", f"{address}/{version}", ("main", "Model Details"), height=2 * HEIGHT)
    opened("promotions", f"{address}/{_view(decisions)}", ("[role=gridcell]", "fewer good"), height=LOW)
    frame(driver, scheme)
    for name, experiment_id in (("gate", decisions), ("monitoring", _named(client, record.experiment(TABLE.name)))):
        newest = client.search_runs([experiment_id], max_results=1)[0].info.run_id
        draw_report(driver, name, Path(client.download_artifacts(newest, page.FILE)), scheme)


def _view(experiment_id: str) -> str:
    """Where MLflow's UI shows the runs of an experiment with the columns that matter."""
    return connection.link(f"experiments/{experiment_id}/runs", viewStateShareKey=experiments.VIEW)


def _named(client: MlflowClient, experiment: str) -> str:
    """The id of an experiment."""
    return next(each.experiment_id for each in client.search_experiments() if each.name == experiment)


def main(folder: Path) -> None:
    """Let the story happen in an empty folder, and draw it."""
    if not can_be_told():
        sys.exit("the pictures are of the sample's table and families, which are others here")
    FOLDER.mkdir(exist_ok=True)
    # Runs say from which commit they are, and whether all was committed, only where git knows the folder.
    subprocess.run(["git", "clone", "--quiet", "--shared", str(PROJECT), str(folder)], check=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for store in connected(folder, monkeypatch):

            def look_at(live: Live) -> None:
                with browser(f"http://127.0.0.1:{live.port}/ping", folder / "pages") as driver:
                    for scheme in SCHEMES:
                        draw_pages(driver, live, folder / "plots" / page.FILE, scheme)

            tell(folder, store, look_at)
            with served_ui(store) as address, browser(address, folder / "profile") as driver:
                for scheme in SCHEMES:
                    draw_ui(driver, address, MlflowClient(store), scheme)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        main(Path(folder))
    DIGESTS.write_text(json.dumps(digests(), indent=2) + "\n")

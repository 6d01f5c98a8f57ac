"""Draw the pictures in docs/img anew, what people look at in a browser: python -m docs.pictures.

It trains, promotes, serves and monitors on the sample in a temporary folder, and looks at that in Chromium, in light
and in dark. What a picture shows is written to docs/pictures.json as digests, so that a test can tell when it has
become old.
"""

import hashlib
import json
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
# Of each picture, the files that decide what is to be seen on it.
SHARED = ("docs/pictures.py", "data/loans.csv", "understudy/table.py", "understudy/families.py")
DRAWN = tuple(f"understudy/report/{name}" for name in ("charts.py", "templates/parts.html", "templates/base.css"))
SOURCES = {
    "runs": ("understudy/tracking/experiments.py",),
    "batch": ("understudy/training/evaluation.py",),
    "compare": ("understudy/tracking/family_runs.py",),
    "version": ("understudy/report/card.py",),
    "promotions": ("understudy/tracking/experiments.py",),
    "gate": ("understudy/report/gate_page.py", "understudy/report/templates/gate.html", *DRAWN),
    "monitoring": ("understudy/report/window_page.py", "understudy/report/templates/window.html", *DRAWN),
    "report": ("understudy/report/batch_page.py", "understudy/report/templates/batch.html", *DRAWN),
    "try": (
        "understudy/pages/static/try.html",
        "understudy/pages/static/try.js",
        "understudy/report/templates/base.css",
    ),
    "docs": ("understudy/pages/static/docs.js", "understudy/pages/openapi.py", "understudy/report/templates/base.css"),
}
PICTURES = {f"{name}-{scheme}.png": name for name in SOURCES for scheme in SCHEMES}


def digests(picture: str) -> dict[str, str]:
    """The SHA-256 of a picture and of what it shows, by path, and the version of MLflow."""
    files = (f"docs/img/{picture}", *SHARED, *SOURCES[PICTURES[picture]])
    return {"MLflow": VERSION} | {name: hashlib.sha256((PROJECT / name).read_bytes()).hexdigest() for name in files}


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
    for family, *given in (
        ("LogisticRegression",),
        ("DecisionTreeClassifier",),
        ("RandomForestClassifier", "--reason", "fewer good customers lost"),
    ):
        does(register, "--model", family)
        does(promote, "staging")
        does(promote, "production", *given)
    with served(folder, store, "--log", log) as live:
        until(lambda: live.version() == "3")
        send(live, rows)
        look_at(live)
    rows[[TABLE.row_id, TABLE.target.name]].to_csv(folder / "labels.csv", index=False)
    does(monitor, "--log", log, "--labels", str(folder / "labels.csv"))


def frame(driver: Chrome, scheme: str, width: int = WIDTH, height: int = HEIGHT) -> None:
    """Let the pages that are opened next be as large as their picture, and have no scrollbars."""
    screen(driver, scheme, width, height)
    driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})


def draw(driver: Chrome, name: str, scheme: str) -> None:
    """Write what the browser shows as a picture."""
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {})
    (FOLDER / f"{name}-{scheme}.png").write_bytes(b64decode(shot["data"]))


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
    """Wait until what a page says has not changed for two seconds."""
    texts: list[str] = []
    while len(texts) < QUIET or len({*texts[-QUIET:]}) > 1:
        time.sleep(0.5)
        texts.append(driver.execute_script("return document.fonts.status + document.body.innerText"))


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
    opened("compare", families, ("h1, h2, h3", "Comparing 3 Runs"), "Visualizations", HEIGHT + 400)
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
    FOLDER.mkdir(exist_ok=True)
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
    DIGESTS.write_text(json.dumps({picture: digests(picture) for picture in PICTURES}, indent=2) + "\n")

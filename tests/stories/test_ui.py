"""MLflow's UI in a real browser: what the project logs is where people look for it."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from selenium import webdriver
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from deploy.mysql import free_port
from tests.conftest import environment
from understudy import families
from understudy.registry import promotion, registration
from understudy.registry.records import Move, Verdict
from understudy.table import TABLE
from understudy.tracking import connection, experiments, family_runs
from understudy.training import selection

BROWSER, DRIVER = shutil.which("chromium") or "", shutil.which("chromedriver") or ""
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed")

FAMILIES = [name for name in families.FAMILIES if name != families.FLOOR]
SWITCHES = ["headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync", "lang=en-US"]
SWITCHES += [
    "disable-background-networking",
    "disable-component-update",
    "disable-dev-shm-usage",
    "window-size=1280,1900",
]
# What a first visit would set, after popping up the assistant and the registry's promotion.
VISITED = {
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "mlflow.assistant.panelOpen_v1": False,
    "_mlflow_model_registry_promo_modal_dismissed_v1": True,
}
# The figures in a table of runs that its columns cut off.
CUT = """return [...document.querySelectorAll("[role=gridcell][col-id^='metrics.'] *")].filter(
    e => e.scrollWidth > e.clientWidth && e.clientWidth).map(e => e.textContent)"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> MlflowClient:
    path = tmp_path_factory.mktemp("ui") / "mlflow.db"
    shutil.copy(trained / "mlflow.db", path)
    mlflow.set_tracking_uri(f"sqlite:///{path}")
    client = MlflowClient()
    runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
    registration.register(client, selection.best_family(runs), TABLE, TABLE.name)
    for stage in ("staging", "production"):
        promotion.promote(client, TABLE.name, Move(stage, "1", stage), lambda planned: Verdict())
    return client


@contextmanager
def served_ui(store: str) -> Iterator[str]:
    """MLflow's UI of a store; yields its address."""
    port = free_port()
    process = subprocess.Popen(
        ["mlflow", "ui", "--backend-store-uri", store, "--port", str(port), "--workers", "1"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
            break
        except OSError:
            time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(timeout=120)


@contextmanager
def browser(address: str, profile: Path) -> Iterator[Chrome]:
    """Chromium, as if it had visited an MLflow server before."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for switch in [*SWITCHES, f"user-data-dir={profile}"]:
        options.add_argument(f"--{switch}")
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get(address)
    for key, value in VISITED.items():
        driver.execute_script("localStorage.setItem(arguments[0], arguments[1])", key, json.dumps(value))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(store: MlflowClient) -> Iterator[str]:
    with served_ui(store.tracking_uri) as address:
        yield address


@pytest.fixture(scope="module")
def driver(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(address, tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def screen(driver: Chrome, scheme: str, width: int, height: int = 900) -> None:
    """Let pages be shown in light or in dark, on a screen of so many pixels; below 500 it is a phone's."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    preferred = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": preferred})


def visit(driver: Chrome, url: str) -> None:
    driver.get("about:blank")  # else only the fragment changes, and nothing is loaded anew
    driver.get(url)


def see(driver: Chrome, css: str, text: str = "") -> WebElement:
    """The first displayed element of a selector that has a text; waits for it."""
    script = """return [...document.querySelectorAll(arguments[0])].find(
        e => e.getClientRects().length && e.textContent.includes(arguments[1])) || null"""

    def found(_: Chrome) -> Any:
        return driver.execute_script(script, css, text)

    element: WebElement = WebDriverWait(driver, 30).until(found, f"no {css} with {text!r} at {driver.current_url}")
    return element


def follow(driver: Chrome, text: str) -> None:
    """Click a link of a description, which opens in a tab of its own, and go on there."""
    see(driver, "main a", text).click()
    driver.switch_to.window(driver.window_handles[-1])


def compare(driver: Chrome, page: str) -> None:
    """Open the families of a batch side by side, from the batch's page."""
    visit(driver, page)
    follow(driver, "Compare the families")
    see(driver, "h1, h2, h3", "Comparing 3 Runs from 1 Experiment")


def metric(driver: Chrome, name: str) -> list[str]:
    """The values beside a metric's name on the compare page, which draws names and values as two lists."""
    script = """
        const grids = [...document.querySelectorAll('.ReactVirtualized__Grid')];
        const name = [...grids[0].querySelectorAll('a')].find(e => e.textContent.trim() === arguments[0]).parentElement;
        return [...grids.at(-1).querySelectorAll('span')].filter(e => e.parentElement.style.top === name.style.top)
            .map(e => e.textContent.trim())"""
    return list(driver.execute_script(script, name))


@pytest.fixture(scope="module")
def batch(store: MlflowClient) -> Run:
    return family_runs.get_batch(store, TABLE)


@pytest.fixture(scope="module")
def runs(store: MlflowClient, batch: Run) -> dict[str, Run]:
    return {family_runs.family_name(run): run for run in family_runs.families(store, batch)}


@pytest.fixture
def batch_page(address: str, batch: Run, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page that training prints, once the UI is at this address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return connection.page(f"experiments/{batch.info.experiment_id}/runs/{batch.info.run_id}")


def test_families_compare_side_by_side_from_the_page_that_training_prints(
    driver: Chrome, batch_page: str, runs: dict[str, Run]
) -> None:
    compare(driver, batch_page)
    for name in FAMILIES:
        see(driver, "table.mlflow-compare-run-table td", name)
    for name in ("criterion", "max_depth", "n_estimators", "penalty"):
        see(driver, "table.mlflow-compare-run-table th", name)
    for name in ("AUC", "Accuracy", "Mean CV score"):
        shown = [round(float(value), 3) for value in metric(driver, name)]
        assert shown == [round(runs[family].data.metrics[name], 3) for family in FAMILIES]


def test_the_curves_of_all_families_are_one_click_away(driver: Chrome, batch_page: str) -> None:
    visit(driver, batch_page)
    follow(driver, "their ROC curves")
    shown = """return [...document.images].filter(
        i => i.src.startsWith('blob:') && i.naturalWidth && i.getClientRects().length && i.width > 500).length"""
    WebDriverWait(driver, 30).until(lambda d: d.execute_script(shown) == 1, "the curves are not there")


def test_each_experiment_links_to_the_columns_that_matter(driver: Chrome, address: str, store: MlflowClient) -> None:
    decisions = f"{TABLE.name} promotions"
    for name, about, column, cell in [
        (TABLE.name, experiments.TRAINING, "tags.`best family`", "LogisticRegression"),
        (decisions, experiments.RECORDS, "tags.`promotion.outcome`", "completed"),
    ]:
        experiment = store.get_experiment_by_name(name)
        assert experiment
        visit(driver, f"{address}/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning")
        follow(driver, "Show the columns that matter")
        header = see(driver, f"[role=columnheader][col-id='{column}']")
        assert header.rect["width"] == about.columns[column]
        see(driver, "[role=gridcell]", cell)
        assert driver.execute_script(CUT) == []


def test_runs_and_versions_say_what_they_are(driver: Chrome, address: str, batch: Run, runs: dict[str, Run]) -> None:
    experiment = f"{address}/#/experiments/{batch.info.experiment_id}"
    visit(driver, f"{experiment}/runs/{batch.info.run_id}")
    see(driver, "table td", "LogisticRegression")
    best = see(driver, "main p", "Best in cross-validation: LogisticRegression").rect
    assert best["y"] + best["height"] < see(driver, "button", "Show more").rect["y"]
    visit(driver, f"{experiment}/runs/{runs['LogisticRegression'].info.run_id}")
    see(driver, "main", "Best of its grid: C 1, penalty l2.")
    see(driver, "main", "loans training")
    visit(driver, f"{address}/#/models/{TABLE.name}/versions/1")
    see(driver, "main", "Stage (deprecated)")
    see(driver, "main", "Production")
    see(driver, "main", "LogisticRegression (C 1, penalty l2)")
    visit(driver, f"{experiment}/models/{family_runs.model_id(runs['LogisticRegression'])}")
    see(driver, "main", f"{TABLE.name} v1")


def test_the_page_of_a_batch_opens_among_its_artifacts(driver: Chrome, address: str, batch: Run) -> None:
    visit(driver, f"{address}/#/experiments/{batch.info.experiment_id}/runs/{batch.info.run_id}/artifacts/report.html")
    driver.switch_to.frame(see(driver, "iframe"))
    try:
        see(driver, "h2", "Families")
        see(driver, "figure svg")
    finally:
        driver.switch_to.default_content()

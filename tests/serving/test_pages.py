"""The live server's pages in a real browser, and its OpenAPI document against what it answers."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from axe_core_python.selenium import Axe  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from mlflow import MlflowClient
from openapi_spec_validator import validate
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from deploy.mysql import free_port
from tests.conftest import PROJECT
from tests.schema.test_declaration import AGE, ISSUED, LOANS, STATE
from tests.scoring.test_scoring import APPLICANT
from tests.serving.conftest import NAME, NAMES, Live, answering, promote, served, until
from tests.serving.test_requests import Half
from tests.stories.test_ui import BROWSER, DRIVER, browser, screen, see
from understudy.pages import bodies, openapi, site
from understudy.schema.declaration import Table
from understudy.scoring.scorer import Scorer
from understudy.serving import app
from understudy.serving.app import PAGES
from understudy.serving.following import ServedVersion
from understudy.serving.request import PATH
from understudy.verification.version_cache import VersionKey

NGINX = shutil.which("nginx") or ""
needs_browser = pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed")
SCREENS = [(scheme, width) for scheme in ("light", "dark") for width in (390, 1280)]
JSON = "application/json"
Document = dict[str, Any]


@pytest.fixture(scope="module")
def document(live: Live) -> Document:
    return dict(live.ask(path="/openapi.json").json)


def of(document: Document, schema: Any) -> Draft202012Validator:
    """What holds a body against a schema of the document."""
    return Draft202012Validator({"components": document["components"], **schema})


def test_the_document_is_openapi(document: Document) -> None:
    validate(document)
    assert document["info"] | {"description": ""} == {
        "title": f"{NAME} in Production",
        "version": "1",
        "description": "",
    }


def test_the_document_has_every_path_that_is_answered_and_no_other(live: Live, document: Document) -> None:
    assert document["paths"].keys() == {PATH, *PAGES, "/pages/{file}"}
    [file] = document["paths"]["/pages/{file}"]["parameters"]
    assert {f"/pages/{name}" for name in file["schema"]["enum"]} == site.read().keys() - site.PAGES.keys()
    assert live.ask(path="/pages/").status == 404
    assert "/openapi.json" in live.ask(path="/secret").json["message"]


def test_every_page_is_answered_as_the_document_says(live: Live, document: Document) -> None:
    for path, item in document["paths"].items():
        for file in site.PARTS if "{file}" in path else [""]:
            if "get" not in item:
                continue
            said = item["get"]["responses"]["200"]
            reply = live.ask(path=path.replace("{file}", file))
            content_type = reply.headers["content-type"].partition(";")[0]
            assert (reply.status, content_type in said["content"]) == (200, True), path
            assert {name.lower() for name in said["headers"]} <= reply.headers.keys()
            if content_type.endswith("json"):
                of(document, said["content"][content_type]["schema"]).validate(reply.json)
            assert live.ask(path=path.replace("{file}", file), method="HEAD").body == b""


def test_every_example_is_answered_as_the_document_says(live: Live, document: Document) -> None:
    asked = document["paths"][PATH]["post"]
    statuses = []
    for content_type, content in asked["requestBody"]["content"].items():
        for example in content["examples"].values():
            reply = live.ask(example["value"], Content_Type=content_type)
            statuses.append(reply.status)
            assert reply.status == example.get(bodies.REFUSED, 200), reply.body
            said = asked["responses"][str(reply.status)]
            of(document, said["content"][JSON]["schema"]).validate(reply.json)
            assert {name.lower() for name in said["headers"]} <= reply.headers.keys()
            assert of(document, content["schema"]).is_valid(example["value"]) is (reply.status == 200)
    assert statuses == [200] * 6 + [400, 200]


def test_every_answer_that_is_shown_fits_its_schema(document: Document) -> None:
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    answers = [answer for o in operations if isinstance(o, dict) for answer in o["responses"].values()]
    shown = [(content["schema"], content.get("examples", {})) for a in answers for content in a["content"].values()]
    for schema, examples in shown:
        for example in examples.values():
            of(document, schema).validate(example["value"])
    assert sum(len(examples) for _, examples in shown) == 7


def test_refusals_are_as_the_document_says(live: Live, document: Document) -> None:
    refusal = of(document, bodies.ref("Refusal"))
    for status, reply in {
        400: live.ask({"secret": 1}),
        404: live.ask(path="/secret"),
        405: live.ask({}, path="/docs"),
        413: live.ask(b" " * 8_000_001),
        415: live.ask({}, Content_Encoding="gzip"),
    }.items():
        assert reply.status == status
        refusal.validate(reply.json)


def scorer(table: Table, rows: dict[str, list[Any]]) -> Scorer:
    """What answers 0.5 to every row of a table, with some stored rows."""
    return Scorer(table, Half([([0.0, 1.0], [0.5, 0.5])] * len(table.columns)), 0.5, {"rows": rows})  # type: ignore[list-item]


STORED: dict[str, list[Any]] = {
    "age": [30.0, 41.5, 52.0, None],
    "place": ["WY", "NY", "NY", "CA"],
    "issued": [None, "2021-03-04", None, None],
}
PLACE = replace(STATE, name="place")  # of which no other test counts what is not listed
PLACES = replace(LOANS, columns=(AGE, PLACE, ISSUED))  # with a date, a list that is open, and no column as identifier
OTHER = scorer(PLACES, STORED)


def test_the_document_and_the_example_follow_the_table() -> None:
    assert OTHER.example() == {"age": 41.5, "place": "NY", "issued": "2021-03-04"}
    written = openapi.document(OTHER, "7", "loans", "Staging")
    validate(written)
    version = ServedVersion(VersionKey("7", ""), OTHER, {}, 0)
    for name, example in bodies.examples(OTHER).items():
        assert of(written, bodies.ref("Rows")).is_valid(example["value"]) is (name != "refused"), name
        if name != "refused":
            answered, _ = app.score(version, json.dumps(example["value"]).encode(), JSON, "r")
            of(written, bodies.ref("Answer")).validate(json.loads(answered))


def test_the_example_is_never_a_value_that_no_table_lists_or_allows() -> None:
    empty = scorer(PLACES, {"age": [None], "place": ["WY", "WY"], "issued": [None]})
    assert empty.example() == {"age": 120, "place": "CA", "issued": "2029-12-31"}


class Shown(BaseHTTPRequestHandler):
    """The pages, and answers to them, of another table than the server's."""

    files: ClassVar = site.read()
    version: ClassVar = ServedVersion(VersionKey("7", ""), OTHER, {}, 0)
    asked: ClassVar[list[Any]] = []

    def answer(self, answer: app.Answer) -> None:
        self.send_response(answer.status)
        for name, value in [*answer.headers, *site.HEADERS, ("content-length", str(len(answer.content)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.content)

    def do_GET(self) -> None:
        if file := self.files.get(self.path):
            return self.answer(app.Answer(200, app.headers(self.version, file.content_type), file.content))
        pages = {"/schema": bodies.schema(OTHER), "/version": {"name": "loans", "stage": "Staging", "version": "7"}}
        return self.answer(app.Answer(200, app.headers(self.version), json.dumps(pages[self.path]).encode()))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.asked.append(json.loads(body)["dataframe_records"][0])
        try:
            self.answer(app.Answer(200, app.headers(self.version), app.score(self.version, body, JSON, "r")[0]))
        except Exception as error:
            self.answer(app.refusal(error, self.version))

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def other() -> Iterator[str]:
    """The address of pages about another table."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Shown) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def driver(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(f"http://127.0.0.1:{live.port}/ping", tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def complaints(driver: Chrome) -> list[Any]:
    """What the browser has complained of since it was asked last."""
    return list(driver.get_log("browser"))  # type: ignore[no-untyped-call]


def look(driver: Chrome, address: str, scheme: str = "light", width: int = 1280) -> None:
    """Open a page on a screen of this width, in light or in dark."""
    screen(driver, scheme, width)
    complaints(driver)  # of earlier pages
    driver.get(address)


def press(driver: Chrome, *keys: str) -> None:
    ActionChains(driver).send_keys(*keys).perform()


def label(driver: Chrome) -> str:
    """What the control that has the focus is called."""
    script = "const e = document.activeElement; return (e.labels?.[0] ?? e).textContent.trim()"
    return str(driver.execute_script(script))


def control(driver: Chrome, name: str) -> WebElement:
    """The control with a label."""
    script = "return [...document.querySelectorAll('label')].find(e => e.textContent === arguments[0]).control"
    found: WebElement = driver.execute_script(script, name)
    return found


def write(driver: Chrome, name: str, text: str) -> None:
    """Replace what is in the field of a column."""
    element = control(driver, name)
    element.clear()
    element.send_keys(text)


def ask(driver: Chrome) -> None:
    """Press Ask, and wait until there is an answer or a refusal."""
    driver.execute_script("document.querySelector('#answer').replaceChildren()")
    driver.find_element(By.CSS_SELECTOR, "button.first").click()
    see(driver, "#answer h2")


def described(driver: Chrome, element: WebElement) -> str:
    """The texts that a screen reader reads after the label."""
    script = (
        "return arguments[0].getAttribute('aria-describedby').split(' ').map(i => document.getElementById(i).innerText)"
    )
    return " ".join(driver.execute_script(script, element))


def is_accessible(driver: Chrome) -> None:
    found = Axe().run(driver)["violations"]
    assert [(violation["id"], [node["html"] for node in violation["nodes"]]) for violation in found] == []


def stays_within(driver: Chrome, address: str) -> None:
    """Refuse a page that is wider than its screen, has asked another server, or has done what its policy forbids."""
    script = "return [document.documentElement.scrollWidth - innerWidth, performance.getEntries().map(e => e.name)]"
    wider, names = driver.execute_script(script)
    assert wider <= 0
    asked = [name for name in names if "://" in name]
    assert len(asked) >= 5
    assert all(name.startswith(f"{address}/") for name in asked)


@needs_browser
@pytest.mark.parametrize(("scheme", "width"), SCREENS)
def test_a_row_is_asked_about_with_the_keyboard_alone(driver: Chrome, live: Live, scheme: str, width: int) -> None:
    address = f"http://127.0.0.1:{live.port}"
    look(driver, f"{address}/", scheme, width)
    see(driver, "label")
    press(driver, Keys.TAB, Keys.TAB)
    assert label(driver) == "API"
    row = APPLICANT | {"Self_Employed": "Yes", "ApplicantIncome": 2345.5, "LoanAmount": None, "Property_Area": "Rural"}
    for name, cell in row.items():
        press(driver, Keys.TAB)
        assert label(driver).replace(" ", "_").lower().replace("_", "") == name.replace("_", "").lower()
        press(driver, Keys.BACKSPACE if cell is None else str(cell))
    press(driver, Keys.TAB)
    assert label(driver) == "Ask"
    press(driver, Keys.ENTER)
    [wanted] = live.ask({"dataframe_records": [row], "params": {"output": "detail"}}).json["predictions"]
    shown = see(driver, "#answer", "Answered by version 1 in Production.").text
    assert f"Loan Status: {wanted['label']}" in shown
    assert f"Probability of Y: {wanted['probability']:.1%}".replace("%", " %") in shown
    assert f"The answer is Y from {wanted['threshold']:.1%}".replace("%", " %") in shown
    reasons = [item.text for item in driver.find_elements(By.CSS_SELECTOR, "#answer li")]
    assert len(reasons) == len(wanted["moved"]) == 3
    for reason, moved in zip(reasons, wanted["moved"], strict=True):
        assert f"towards {moved['towards']}" in reason
        assert reason.replace(" ", "").startswith(moved["column"].replace("_", "").replace(" ", ""))
    assert driver.find_element(By.ID, "answer").get_attribute("aria-live") == "polite"
    stays_within(driver, address)
    assert complaints(driver) == []
    is_accessible(driver)


@needs_browser
@pytest.mark.parametrize(("scheme", "width"), SCREENS)
def test_what_is_wrong_is_said_at_its_field(driver: Chrome, live: Live, scheme: str, width: int) -> None:
    address = f"http://127.0.0.1:{live.port}"
    look(driver, f"{address}/", scheme, width)
    see(driver, "label")
    write(driver, "Loan Amount", "5,000")
    write(driver, "Loan Amount Term", "601")
    ask(driver)
    assert label(driver) == "Loan Amount"
    amount, term = control(driver, "Loan Amount"), control(driver, "Loan Amount Term")
    assert "Not a number (has a thousands separator). Allowed: 1 to 100000" in described(driver, amount)
    assert "Out of range. Allowed: 1 to 600 months" in described(driver, term)
    assert driver.find_elements(By.CSS_SELECTOR, "[aria-invalid=true]") == [amount, term]
    assert "there is no answer" in driver.find_element(By.ID, "answer").text
    stays_within(driver, address)
    is_accessible(driver)
    write(driver, "Loan Amount", "5000")
    write(driver, "Loan Amount Term", "360")
    ask(driver)
    assert not driver.find_elements(By.CSS_SELECTOR, "[aria-invalid]")
    for name in ("Applicant Income", "Coapplicant Income"):
        write(driver, name, "0")
    ask(driver)
    assert [label(driver), len(driver.find_elements(By.CSS_SELECTOR, "[aria-invalid=true]"))] == ["Applicant Income", 2]
    wrong = "Applicant Income + Coapplicant Income: out of range. Allowed: above 0"
    assert wrong in described(driver, control(driver, "Coapplicant Income"))
    driver.find_element(By.CSS_SELECTOR, "[type=reset]").click()
    assert control(driver, "Applicant Income").get_attribute("value") not in ("", "0")
    assert not driver.find_elements(By.CSS_SELECTOR, "[aria-invalid]")


@needs_browser
def test_the_form_follows_the_stage_and_keeps_what_is_typed(driver: Chrome, live: Live, store: str) -> None:
    look(driver, f"http://127.0.0.1:{live.port}/")
    see(driver, "#served", "Version 1, in Production")
    write(driver, "Applicant Income", "3210")
    try:
        promote(store, "2")
        answering(live, "2")
        ask(driver)
        see(driver, "#answer", "Answered by version 2 in Production.")
        see(driver, "#served", "Version 2, in Production")
        assert control(driver, "Applicant Income").get_attribute("value") == "3210"
    finally:
        promote(store, "1")
        answering(live, "1")


@needs_browser
def test_the_page_waits_for_a_first_version(driver: Chrome, store: str, tmp_path: Path) -> None:
    with served(tmp_path, store, "--stage", "Staging") as waiting:
        look(driver, f"http://127.0.0.1:{waiting.port}/")
        see(driver, "#served", f"{NAME} has no version in Staging that could be served yet. It is asked again every 5")
        assert not driver.find_element(By.CSS_SELECTOR, "form").is_displayed()
        try:
            MlflowClient(store).set_registered_model_alias(NAME, "staging", "1")
            see(driver, "#served", "Version 1, in Staging")
            ask(driver)
            see(driver, "#answer", "Answered by version 1 in Staging.")
        finally:
            MlflowClient(store).delete_registered_model_alias(NAME, "staging")


@needs_browser
def test_dates_and_open_lists_have_fields_of_their_own(driver: Chrome, other: str) -> None:
    look(driver, f"{other}/")
    see(driver, "#served", "Version 7, in Staging")
    age, place, issued = (control(driver, column.name) for column in (AGE, PLACE, ISSUED))
    assert [issued.get_attribute("type"), issued.get_attribute("value")] == ["date", "2021-03-04"]
    assert "such as CA, NY" in described(driver, place)
    assert place.get_attribute("list")
    assert "0 to 120 years" in described(driver, age)
    is_accessible(driver)
    write(driver, "place", "WY")
    write(driver, "age", "")
    ask(driver)
    see(driver, "#answer", "No column moved it.")
    assert Shown.asked[-1] == {"age": None, "place": "WY", "issued": "2021-03-04"}


@needs_browser
@pytest.mark.parametrize(("scheme", "width"), SCREENS)
def test_the_document_is_shown_in_full(driver: Chrome, live: Live, document: Document, scheme: str, width: int) -> None:
    address = f"http://127.0.0.1:{live.port}"
    look(driver, f"{address}/docs", scheme, width)
    see(driver, "h2", "POST /invocations")
    shown = driver.find_element(By.TAG_NAME, "body").text
    for path in document["paths"]:
        assert path in shown
    for name, schema in document["components"]["schemas"].items():
        if name not in ("Row", "EncodedRow"):
            assert all(f"{key}" in shown for key in schema.get("properties", {})), name
        assert name in shown
    assert all(name in shown for name in NAMES)
    assert "$ref" not in shown
    assert "[object" not in shown
    assert "undefined" not in shown
    stays_within(driver, address)
    assert complaints(driver) == []
    is_accessible(driver)


@needs_browser
def test_every_command_of_the_document_can_be_copied_and_works(driver: Chrome, live: Live) -> None:
    address = f"http://127.0.0.1:{live.port}"
    look(driver, f"{address}/docs")
    see(driver, ".command")
    permissions = {"origin": address, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    driver.execute_cdp_cmd("Browser.grantPermissions", permissions)
    commands = driver.find_elements(By.CSS_SELECTOR, ".command")
    assert len(commands) == 17
    commands[0].find_element(By.TAG_NAME, "button").click()
    WebDriverWait(driver, 10).until(lambda _: "Copied" in commands[0].text)
    script = "navigator.clipboard.readText().then(arguments[0])"
    copied = driver.execute_async_script(script)
    codes = [command.find_element(By.TAG_NAME, "code").text for command in commands]
    assert copied == codes[0]
    for code in codes:
        ended = subprocess.run(
            ["bash", "-c", f"{code} -w ' %{{http_code}}'"], capture_output=True, text=True, check=True
        )
        assert ended.stdout.endswith(" 400" if "true" in code else " 200"), code


@pytest.fixture(scope="module")
def proxy(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Live]]:
    """deploy/nginx before the live server: what answers at its ports 5000 and 8080 in a container."""
    folder = tmp_path_factory.mktemp("nginx")
    ports = {port: Live(free_port(), folder) for port in (5000, 8080)}
    written = (PROJECT / "deploy" / "nginx" / "nginx.conf").read_text().replace("model:1234", f"127.0.0.1:{live.port}")
    written = written.replace("$server_port = 5000", f"$server_port = {ports[5000].port}")
    for port, place in ports.items():
        written = written.replace(f"listen {port};", f"listen 127.0.0.1:{place.port};")
    (folder / "nginx.conf").write_text(written.replace("/tmp/", f"{folder}/"))  # noqa: S108 - the container's
    process = subprocess.Popen([NGINX, "-c", folder / "nginx.conf", "-g", "daemon off;"])
    until(ports[8080].is_listening)
    yield ports
    process.terminate()
    process.wait(20)


@needs_browser
@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
def test_the_pages_work_below_the_proxys_prefix(driver: Chrome, proxy: dict[int, Live]) -> None:
    address = f"http://127.0.0.1:{proxy[8080].port}/model"
    look(driver, f"{address}/")
    see(driver, "#served", "Version 1, in Production")
    ask(driver)
    see(driver, "#answer", "Answered by version 1 in Production.")
    stays_within(driver, address)
    driver.find_element(By.LINK_TEXT, "API").click()
    see(driver, "h2", "POST /invocations")
    assert f"{address}/invocations" in see(driver, ".command").text
    stays_within(driver, address)
    assert {proxy[5000].ask(path=f"/model/{page}").status for page in ("", "invocations")} == {404}


@needs_browser
def test_a_browser_runs_nothing_but_the_servers_own_scripts(driver: Chrome, live: Live) -> None:
    for path in site.PAGES:
        reply = live.ask(path=path)
        assert reply.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert b"http:" not in reply.body
        assert b"<noscript>" in reply.body
        look(driver, f"http://127.0.0.1:{live.port}{path}")
        script = """const e = document.createElement('script'); e.textContent = 'window.ran = true';
            document.head.append(e); return window.ran ?? false"""
        assert driver.execute_script(script) is False

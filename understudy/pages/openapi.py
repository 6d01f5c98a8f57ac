"""The live server's contract as an OpenAPI document; docs/scoring.md says the same in words."""

from typing import Any

from understudy.pages import bodies, site
from understudy.pages.bodies import ref
from understudy.scoring.scorer import Scorer

OPENAPI = "3.1.1"
JSON = "application/json"
ROWS = "The body is JSON in one of the forms of MLflow, also of MLflow 1.x, or CSV: a header, then rows."
ABOUT = (
    "Asks the version of a model that is in a stage. Another version may take over between two requests; all of an "
    "answer comes from one version. Pages take GET and HEAD; another method gets 405, another path 404, as Refusal."
)
REFUSALS = {
    400: "Rows that are not allowed, or a body or a head that is not understood.",
    408: "The body is not whole in time.",
    413: "The body is too long.",
    415: "Another Content-Type or charset, or a compressed body.",
    500: "The server has made a mistake.",
    501: "A Transfer-Encoding other than chunked.",
    503: "There is no version yet, or too much to read at once.",
}

Part = dict[str, Any]


def document(scorer: Scorer, version: str, name: str, stage: str) -> Part:
    """The OpenAPI document while a version answers.

    Args:
        scorer: What answers.
        version: Its number.
        name: The registered model's.
        stage: That is followed.
    """
    return {
        "openapi": OPENAPI,
        "info": {"title": f"{name} in {stage}", "version": version, "description": ABOUT},
        "servers": [{"url": "./"}],
        "paths": {"/invocations": {"post": _invocations(scorer, version)}, **_paths(name, stage, version)},
        "components": {"schemas": bodies.schemas(scorer), "headers": _headers()},
    }


def _headers() -> Part:
    about = {
        "X-Model-Version": "The number of the version that has answered.",
        "X-Request-Id": "The id that the client gave, or one that the server made.",
        "Retry-After": "Seconds after which it may be worth asking again.",
    }
    return {name: {"description": text, "schema": bodies.TEXT} for name, text in about.items()}


def _invocations(scorer: Scorer, version: str) -> Part:
    request_id = {
        "name": "X-Request-Id",
        "in": "header",
        "description": "The request's id, printable ASCII; rows without an id are called by it.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    }
    csv = {"row": {"summary": "A row as CSV", "value": bodies.as_csv(scorer.example())}}
    content = {
        JSON: {"schema": ref("Rows"), "examples": bodies.examples(scorer)},
        "text/csv": {"schema": bodies.TEXT, "examples": csv},
    }
    answered = _answer("An answer for each row.", JSON, ref("Answer"), bodies.answers(scorer, version))
    answered["headers"] |= _header("X-Request-Id")
    refused = _refusals(*REFUSALS)
    body = bodies.refusal(scorer.table, bodies.faulty(scorer))
    refused["400"]["content"][JSON]["examples"] = {"refused": {"value": body}}
    for answer in refused.values():
        answer["headers"] |= _header("X-Request-Id")
    return {
        "operationId": "invocations",
        "summary": "Ask about rows",
        "description": ROWS,
        "parameters": [request_id],
        "requestBody": {"required": True, "content": content},
        "responses": {"200": answered, **refused},
    }


def _paths(name: str, stage: str, version: str) -> Part:
    serving = {"name": name, "stage": stage, "version": version, "manifest": "0" * 64, "since": "2026-11-01T12:00:00Z"}
    any_object, text = {"type": "object"}, bodies.TEXT
    html, css, javascript = (site.TYPES[kind].partition(";")[0] for kind in ("html", "css", "js"))
    part = _get("Load a part of a page", javascript, text)
    part["get"]["responses"]["200"]["content"][css] = {"schema": text}
    file = {"name": "file", "in": "path", "required": True, "schema": {"enum": list(site.PARTS)}}
    return {
        "/": _get("Try the model in a browser", html, text),
        "/docs": _get("Read this document in a browser", html, text),
        "/openapi.json": _get("Load this document", JSON, any_object, needs_version=True),
        "/ping": _get("Ask whether the process answers", JSON, ref("Alive"), {"status": "alive"}),
        "/health": _get(
            "Ask whether a version answers", JSON, ref("Health"), {"status": "serving", "version": version}
        ),
        "/version": _get("Ask which version answers", JSON, ref("Version"), serving, needs_version=True),
        "/schema": _get("Load the JSON Schema of a row", "application/schema+json", any_object, needs_version=True),
        "/metrics": _get("Load what all workers have counted, for Prometheus", "text/plain", text),
        f"{site.FOLDER}{{file}}": {"parameters": [file], **part},
    }


def _get(summary: str, content_type: str, schema: Part, example: Any = None, needs_version: bool = False) -> Part:
    examples = {"answer": {"value": example}} if example else {}
    refused = _refusals(400, 503) if needs_version else _refusals(400)
    responses = {"200": _answer("The answer.", content_type, schema, examples), **refused}
    return {"get": {"summary": summary, "responses": responses}}


def _refusals(*statuses: int) -> Part:
    refused = {str(status): _answer(REFUSALS[status], JSON, ref("Refusal"), {}) for status in statuses}
    if "503" in refused:
        refused["503"]["headers"] |= _header("Retry-After")
    return refused


def _answer(about: str, content_type: str, schema: Part, examples: Part) -> Part:
    content = {content_type: {"schema": schema, **({"examples": examples} if examples else {})}}
    return {"description": about, "headers": _header("X-Model-Version"), "content": content}


def _header(name: str) -> Part:
    return {name: {"$ref": f"#/components/headers/{name}"}}

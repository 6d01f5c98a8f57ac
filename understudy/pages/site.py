"""The files of the pages by their paths, read once, and the headers that keep a browser to this server."""

from importlib.resources import files
from typing import NamedTuple

PAGES = {"/": "try.html", "/docs": "docs.html"}
FOLDER = "/pages/"  # of what the pages load
PARTS = ("page.js", "try.js", "docs.js", "style.css", "base.css")
TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
ALLOWED = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "data:",  # the empty icon, without which a browser asks for /favicon.ico
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = [
    ("content-security-policy", "; ".join(f"{name} {sources}" for name, sources in ALLOWED.items())),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
]


class File(NamedTuple):
    """A file as it is answered."""

    content_type: str
    content: bytes


def read() -> dict[str, File]:
    """All files by the paths at which they are asked for."""
    named = PAGES | {f"{FOLDER}{name}": name for name in PARTS}
    return {path: File(TYPES[name.rpartition(".")[2]], _content(name)) for path, name in named.items()}


def _content(name: str) -> bytes:
    shared = files("understudy.report") / "templates" / name
    return (shared if name == "base.css" else files(__package__) / "static" / name).read_bytes()

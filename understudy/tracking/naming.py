"""What names a tracking store, an experiment and a registered model, and where artifacts lie; loads no MLflow."""

import hashlib
import os
import re
import shlex
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from understudy.errors import UserError
from understudy.table import TABLE

PROJECT = Path(__file__).resolve().parents[2]
ARTIFACTS = "mlruns"  # the folder of the embedded store's artifacts, in the project's
STORES = re.compile(r"(https?|(sqlite|mysql|postgresql|mssql)(\+\w+)?)://")
ADDRESSES = "http://HOST:5000, mysql://USER:PASSWORD@HOST/DATABASE or sqlite:////FOLDER/mlflow.db"
LONGEST = 200  # letters of a name; with what the project adds, MySQL's columns take 256


def sqlite(file: Path) -> str:
    """The address of a SQLite file, in which SQLAlchemy takes a `%` or `?` of the path for its own unless escaped."""
    escaped = quote(str(file))
    # With this driver's name in the address, MLflow does not make an empty folder of the escaped path.
    return f"sqlite{'' if escaped == str(file) else '+pysqlite'}:///{escaped}"


EMBEDDED = sqlite(PROJECT / "mlflow.db")


def uri() -> str:
    """The store's address: `MLFLOW_TRACKING_URI`, or else that of `mlflow.db` in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or EMBEDDED


def check_uri(address: str) -> None:
    """Refuse what MLflow would take for something else, or end with a traceback that may show a password.

    Raises:
        UserError: It is not the address of a tracking server or of a database.
    """
    if "@" in address:
        from understudy.reading import reader  # pandas takes memory that following an alias does not need

        # A password may have an @ in the address of a server, in that of a database a part of it would be shown.
        shown = re.sub("(?<=^http)(s?://)[^/]*@", r"\1", address)
        if not (STORES.match(address) and reader.WELL_FORMED.fullmatch(f"{shown}/")):
            fix = "in its user and password write @ as %40, / as %2F, # as %23 and ? as %3F"
            raise UserError("MLFLOW_TRACKING_URI is malformed", f"{fix}, as in {ADDRESSES}")
    elif not STORES.match(address):
        better = _better(address)
        fix = f"export MLFLOW_TRACKING_URI={shlex.quote(better)}" if better else f"unset it, or set it to {ADDRESSES}"
        raise UserError(f"MLFLOW_TRACKING_URI is {address}, which is neither a tracking server nor a database", fix)


def _better(address: str) -> str | None:
    """The address that a person has most likely meant; None if nobody can tell."""
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", address):
        return f"http://{address}"
    path = path_of(address)
    if path is None or not (address.startswith("file:") or re.search("[/.~]", address)):
        return None
    path = path.expanduser().absolute()
    return sqlite(path if path.suffix == ".db" else path / "mlflow.db")


def artifact_location(project: Path, experiment: str) -> str:
    """Where the artifacts of an experiment lie: in a folder of its own, whatever its name is.

    MLflow takes a path for that of a URL and unescapes it.
    """
    is_plain = re.fullmatch(r"\w[\w .-]{,99}", experiment, re.ASCII)
    folder = experiment if is_plain else hashlib.sha256(experiment.encode()).hexdigest()[:16]
    return escaped_path(project / ARTIFACTS / folder)


def escaped_path(path: Path) -> str:
    """A path as MLflow has it in locations of artifacts."""
    return quote(str(path), safe="/ ")


def path_of(location: str) -> Path | None:
    """The path that a location of artifacts means; None if it is no path."""
    place = urlsplit(location)
    if place.scheme not in ("", "file"):
        return None
    return Path(url2pathname(place.path if place.scheme else location))


def check_experiment(name: str) -> None:
    """Refuse what cannot name an experiment, before anything is written.

    Raises:
        UserError: It is empty, a database has no room for it, or a terminal would not show it as it is.
    """
    if not name.strip() or not name.isprintable() or len(name) > LONGEST:
        raise UserError(f"{name!r} cannot name an experiment", "choose another --experiment-name")


def check_name(name: str) -> None:
    """Refuse what cannot name a registered model, before anything is asked or written.

    Raises:
        UserError: MLflow takes it for a path, a database has no room for it, or MLflow has no way to ask for it, as for
            a name with a quotation mark.
    """
    is_path = name == "." or name.startswith("..")
    if is_path or not name.strip() or set(name) & set("/:'") or len(name) > LONGEST:
        raise UserError(f"{name!r} cannot name a registered model", "choose another --name")


def metric(text: str) -> str:
    """A text without what MLflow takes in no metric's name."""
    return re.sub(r"[^ \w./-]", "", text)


def option(name: str) -> str:
    """What stands behind a command that is about this registered model: nothing for the table's own."""
    return "" if name == TABLE.name else f" --name {shlex.quote(name)}"

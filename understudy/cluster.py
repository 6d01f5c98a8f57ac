"""A Dask cluster that work is given to, once everything on it is known to be what it is here."""

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from understudy.errors import UserError

if TYPE_CHECKING:
    from distributed import Client

SECONDS_TO_ANSWER = 5
# Beside those that Dask itself names, Python, dask, distributed, cloudpickle, numpy and pandas among them.
PACKAGES = ["scikit-learn", "scipy", "joblib", "pyarrow", "onnxruntime"]
PROJECT = "this project's understudy/"


@contextmanager
def connect(address: str) -> Iterator["Client"]:
    """A client of a cluster that has workers, whose packages and project are the same as here.

    A worker that dies costs time only: what it was doing is done again by another, once there is one.

    Args:
        address: Of the scheduler, as tcp://HOST:PORT.

    Raises:
        UserError: There is no such cluster, it does not fit, or it is lost within the block.
    """
    try:
        import distributed
    except ImportError as error:
        fix = "pip install --require-hashes -r requirements-cluster.lock"
        raise UserError("--cluster: Dask is not installed", fix) from error
    _check_address(address)
    # What it logs on a lost connection is said in two lines.
    for name in ("distributed.client", "distributed.core", "distributed.comm"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        # Dask's client alone would wait for ever for another kind of server, or read anything into its answer.
        _greet(address)
    except Exception as error:
        problem = f"--cluster: no Dask scheduler answers at {address}"
        raise UserError(problem, "start one, as make cluster does, or name another address") from error
    with warnings.catch_warnings(action="ignore"):  # of versions, which are compared below
        client = distributed.Client(address, set_as_default=False)
    with client:
        if not client.nthreads():
            raise UserError(f"the cluster at {address} has no workers", f"start some: dask worker {address}")
        _check_fits(client, address)
        try:
            yield client
        except distributed.KilledWorker as error:
            problem = f"the workers of {address} died of one piece of work again and again"
            raise UserError(problem, "give them more memory, or look into their logs") from error
        except distributed.client.FutureCancelledError as error:
            problem = f"the cluster at {address} has lost the work that it was given"
            raise UserError(problem, "see whether its scheduler and workers run, then start again") from error


def _greet(address: str) -> None:
    import asyncio  # with --cluster alone, as Dask itself

    from distributed import comm

    async def greet() -> None:
        greeted = await comm.connect(address)
        await greeted.close()

    asyncio.run(asyncio.wait_for(greet(), SECONDS_TO_ANSWER))


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    try:
        is_whole = parts.scheme in ("tcp", "tls") and parts.hostname and parts.port
    except ValueError:  # a port that is no number
        is_whole = False
    if not is_whole:
        raise UserError(f"--cluster: {address} is not the address of a Dask scheduler", "write tcp://HOST:8786")


def _check_fits(client: "Client", address: str) -> None:
    """Refuse a cluster with another version of a package, or of this project.

    Its workers import the project's modules from their own disk, and read what this Python has pickled.
    """
    versions: Any = client.get_versions(packages=PACKAGES)
    ours = _compared(versions["client"], digest())
    projects = client.run(digest, on_error="return")
    theirs = {f"worker {name}": _compared(seen, projects.get(name)) for name, seen in versions["workers"].items()}
    theirs["the scheduler"] = _compared(versions["scheduler"], _of_scheduler(client))
    for place, packages in theirs.items():
        for name, version in ours.items():
            if packages.get(name) != version:
                problem = f"{name} is {packages.get(name)} on {place} of {address}, and {version} here"
                raise UserError(problem, "install there what is installed here, or run both from one image")


def _of_scheduler(client: "Client") -> object:
    try:
        return client.run_on_scheduler(digest)
    except ImportError as error:
        return error


def _compared(seen: Any, project: object) -> dict[str, str]:
    """What has to be equal, as texts by name: pickles are read by another micro version of Python too."""
    minor = ".".join(seen["packages"]["python"].split(".")[:2])
    known = {name: str(version) for name, version in seen["packages"].items()}
    return known | {"python": minor, PROJECT: project if isinstance(project, str) else "missing"}


def digest() -> str:
    """12 hexadecimal digits that two copies of the package share if their source files are equal."""
    folder, content = Path(__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return content.hexdigest()[:12]

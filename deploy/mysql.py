# PYTHON_ARGCOMPLETE_OK
"""A private database server and an MLflow server on it, without Docker, until Ctrl-C.

python -m deploy.mysql   (make mysql); the data stay in .mysql/ of the project's folder

Needs Debian's mariadb-server or mysql-server, and mysqlclient, which is built with libmariadb-dev, pkg-config and gcc.
"""

import argparse
import fcntl
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy import secrets
from understudy import errors, terminal
from understudy.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / ".mysql"
PACKAGES = "sudo apt-get install mariadb-server libmariadb-dev pkg-config gcc python3-dev"
PATIENCE = 180  # seconds that a server may take to start, or to stop


def missing() -> str:
    """What this machine lacks for it, or for building mysqlclient; empty if nothing."""
    wanted = {
        "MariaDB or MySQL server": _program("mariadbd", "mysqld"),
        "client library's headers": _program("mariadb_config", "mysql_config"),
        "pkg-config": _program("pkg-config"),
        "compiler": _program("cc"),
    }
    return ", ".join(name for name, path in wanted.items() if not path)


def check() -> None:
    """Refuse to go on where something is missing.

    Raises:
        UserError: It is, and how to install it.
    """
    if lacking := missing():
        raise UserError(f"not installed: {lacking}", f"{PACKAGES}, then: make mysql")


def _program(*names: str) -> str:
    # Debian puts servers where only root looks.
    path = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
    return next(filter(None, (shutil.which(name, path=path) for name in names)), "")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def database(folder: Path, port: int) -> Iterator[str]:
    """A database server on loopback with the databases and users of `deploy.secrets`; yields its address.

    Its data and secrets lie in the folder, and stay there. What connects comes by TCP: nothing else gets in.

    Raises:
        UserError: It does not start.
    """
    secrets.make(folder / "secrets")
    command = _install(folder / "data")
    command += [f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
    # Relative to the data, since the path of a socket has a limit of 107 characters.
    command += [f"--socket={port}.sock", f"--pid-file={folder / 'pid'}"]
    command += [f"--init-file={folder / 'secrets' / secrets.USERS}"]
    # MySQL's, which keeps a binary log and listens on another port too; MariaDB passes over what is loose.
    command += ["--log-bin-trust-function-creators=1", "--loose-mysqlx=OFF"]
    with _running(command, folder / "database.log", lambda: _accepts(port)):
        yield f"127.0.0.1:{port}"


def _install(data: Path) -> list[str]:
    """Make the server's own tables if there are none; returns the command that starts the server."""
    program = _program("mariadbd", "mysqld")
    common = ["--no-defaults", f"--datadir={data}", f"--user={getpass.getuser()}"]
    if not data.exists():
        maria = program.endswith("mariadbd")
        command = ["mariadb-install-db", *common, "--skip-test-db"] if maria else [program, *common, "--initialize"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            shutil.rmtree(data, ignore_errors=True)
            reason = ran.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise UserError(f"{command[0]} cannot make {data}: {reason[0]}", "mend that, then: make mysql")
    return [program, *common]


@contextmanager
def tracking_server(folder: Path, host: str, port: int, *options: str) -> Iterator[str]:
    """`mlflow server` on a migrated database, with its artifacts in the folder; yields its address.

    Args:
        folder: As `database` has it.
        host: The database server's, with its port.
        port: To listen on.
        options: More of `mlflow server`.

    Raises:
        UserError: It does not start.
    """
    # Without its runner of jobs, which nothing here needs and which starts processes of its own.
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", secrets.address(host, "tracking", folder / "secrets" / secrets.RUNTIME)]
    command += ["--artifacts-destination", str(folder / "artifacts"), *options]
    with _running(command, folder / "server.log", lambda: _answers(port), **settings):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _running(command: list[str], log: Path, ready: Callable[[], bool], **settings: str) -> Iterator[None]:
    """A server in a process group of its own, from when it is ready until it is asked to stop."""
    env = {**os.environ, **settings}
    with log.open("a") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=log.parent, process_group=0, env=env)
    try:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"{Path(command[0]).name} does not start", f"see the end of {log}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps another `make mysql` out of a folder.

    Raises:
        UserError: Another one is in it.
    """
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"make mysql is already running, on {folder}", "use that one, or stop it first") from None
        yield


def options() -> argparse.ArgumentParser:
    """Nothing but help."""
    return argparse.ArgumentParser(prog="python -m deploy.mysql", **terminal.explained(__doc__))


def main() -> None:
    """Start both, and wait."""
    terminal.parse(options())
    check()
    from deploy import migrate  # loads MLflow, which --help need not wait for

    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    os.umask(0o077)
    FOLDER.mkdir(exist_ok=True)
    with _alone(FOLDER), database(FOLDER, free_port()) as host:
        for name in secrets.DATABASES:
            migrate.upgrade(host, name, FOLDER / "secrets" / secrets.MIGRATOR)
        with tracking_server(FOLDER, host, free_port()) as uri:
            print(f"MySQL at {host}, MLflow at {uri}; Ctrl-C stops both. In another terminal:", flush=True)
            print(f"export MLFLOW_TRACKING_URI={uri}", flush=True)
            while True:  # signal.pause() sleeps on when a signal comes just before, or to another thread
                time.sleep(1)


if __name__ == "__main__":
    errors.run(main)

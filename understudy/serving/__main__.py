# PYTHON_ARGCOMPLETE_OK
"""What `serve.sh` runs: MLflow's own model server on a verified copy of the version that is in a stage, or ours.

MLflow's serves one version until it is stopped; ours (`--live`) follows the stage, and docs/scoring.md is its page.
"""

import argparse
import errno
import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from understudy import errors, terminal
from understudy.errors import UserError
from understudy.serving import supervisor
from understudy.table import TABLE
from understudy.tracking import naming

HELP = """Serve the version in a stage with `mlflow models serve`, or live.

./serve.sh                                       the version in Production, on port 1234
./serve.sh --live --log kept                     follows the stage, and keeps rows and answers
./serve.sh --live --log kept --shadow staging    asks the version in Staging too
./serve.sh --stage Staging --port 1235"""
LONGEST = 60  # seconds that granian waits at most for a head
HEAD = 65_536  # bytes that granian reads at once; it refuses a head of twice as many
CONNECTIONS = 2048  # of a worker; as many more wait
END = 5  # seconds for the answers that are on their way when the server is stopped


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="serve.sh", **terminal.explained(HELP))
    parser.add_argument("--name", default=TABLE.name, help="registered model (default: %(default)s)")
    parser.add_argument(
        "--stage", default="Production", choices=["Staging", "Production"], help="(default: %(default)s)"
    )
    parser.add_argument("--port", default=1234, type=int, help="(default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    parser.add_argument("--workers", default=1, type=int, help="processes (default: %(default)s)")
    live = parser.add_argument_group("with the project's own server, which follows the stage")
    live.add_argument("--live", action="store_true", help="use it")
    live.add_argument("--poll", default=5, type=float, help="seconds between two looks (default: %(default)s)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "understudy")
    live.add_argument("--cache", default=cache, type=Path, help="holds the verified version (default: %(default)s)")
    live.add_argument("--log", type=Path, metavar="FOLDER", help="keeps accepted rows and answers as Parquet files")
    live.add_argument(
        "--shadow", type=str.capitalize, choices=["Staging", "Production"], help="asks the version in this stage too"
    )
    live.add_argument(
        "--keep-alive", default=8, type=int, help="seconds to wait for a request's head (default: %(default)s)"
    )
    return parser


def main() -> None:
    args = terminal.parse(options())
    address = free_address(args.host, args.port)
    if args.live:
        serve_live(args, address)
    else:
        serve_mlflow(args)


def free_address(host: str, port: int) -> str:
    """The host's IP address, on which nobody listens at the port.

    Raises:
        UserError: Somebody does, or there is no such address.
    """
    if not 0 < port < 65536:
        raise UserError(f"there is no port {port}", "choose a --port from 1 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address, family=family).close()
    except OSError as error:
        wrong = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror}", f"choose another {wrong}") from None
    return str(address[0])


def serve_mlflow(args: argparse.Namespace) -> None:
    """Become the supervisor of `mlflow models serve` on a verified copy of the version that is in the stage now."""
    # MLflow takes seconds to load, and --help need not wait for it.
    import mlflow

    from understudy.registry import stages
    from understudy.scoring import scorer
    from understudy.tracking import connection
    from understudy.verification import manifest

    client = connection.connect()
    version = client.get_model_version(args.name, stages.in_stage(client, args.name, args.stage.lower()))
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--host", args.host, "--port", str(args.port), "--workers", str(args.workers)]
    os.environ["MLFLOW_TRACKING_URI"] = mlflow.get_tracking_uri()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "true"
    os.environ[scorer.VERSION] = str(version.version)
    with manifest.verified(client, version) as copy:
        where = f"http://{args.host}:{args.port}"
        print(f"{args.name} version {version.version} ({args.stage}) on {where}, Ctrl-C stops it", flush=True)
        supervisor.become(copy, [*command, "--model-uri", str(copy)])


def serve_live(args: argparse.Namespace, address: str) -> None:
    """Serve whatever the stage's alias names, until a signal comes."""
    if args.workers < 1 or args.poll <= 0 or not 0 < args.keep_alive <= LONGEST:
        needed = f"--workers has to be at least 1, --poll above 0, and --keep-alive from 1 to {LONGEST}"
        raise UserError(needed, "./serve.sh --help")
    if args.shadow == args.stage:
        raise UserError(f"the version in {args.stage} cannot be its own shadow", "choose another --shadow")
    naming.check_name(args.name)
    uri = naming.uri()
    naming.check_uri(uri)
    if os.environ.get("MLFLOW_REGISTRY_URI", uri) != uri:
        fix = "unset MLFLOW_REGISTRY_URI, or serve without --live"
        raise UserError("the live server follows the tracking store alone, and no registry elsewhere", fix)
    if args.log:
        args.log.mkdir(0o700, parents=True, exist_ok=True)
        if any(args.log.glob("*.parquet")):
            raise UserError(f"{args.log} has rows in the form of an earlier release", "name another folder for --log")
    with TemporaryDirectory(prefix="understudy-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # prometheus_client reads it as it is imported, below
        from understudy.serving.app import App
        from understudy.serving.following import Settings

        cache, log = args.cache.absolute(), args.log.absolute() if args.log else None
        started = time.time()
        settings = Settings(Path(folder), uri, args.name, args.stage, args.poll, cache, log, args.shadow, started)
        loader: Any = partial(App, settings, parent=os.getpid())
        print(f"{args.name} in {args.stage}, live on http://{args.host}:{args.port}, Ctrl-C stops it", flush=True)
        serve_granian(loader, address, args)


def serve_granian(loader: Any, address: str, args: argparse.Namespace) -> None:
    """Let granian run what the loader returns, in as many processes as are asked for."""
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces, Loops
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    server = Granian(
        "understudy",
        address=address,
        port=args.port,
        interface=Interfaces.RSGI,
        workers=args.workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=CONNECTIONS,
        backpressure=CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=args.keep_alive * 1000, max_buffer_size=HEAD),
        log_level=LogLevels.error,
        respawn_failed_workers=True,
        workers_kill_timeout=END,
    )
    # granian starts its workers anew on SIGHUP; a terminal that is closed should end them, unless nohup forbids it.
    on_hangup = signal.getsignal(signal.SIGHUP)
    if on_hangup == signal.SIG_DFL:
        on_hangup = server.signal_handler_interrupt
    server.on_startup(lambda: signal.signal(signal.SIGHUP, on_hangup))
    server.serve(target_loader=loader, wrap_loader=False)


if __name__ == "__main__":
    errors.run(main)

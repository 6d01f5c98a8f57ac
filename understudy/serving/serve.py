"""What `serve.sh` runs: MLflow's own model server on a verified copy of the version that is in a stage, or ours.

MLflow's serves one version until it is stopped; ours (`--live`) follows the stage, and docs/scoring.md is its page.
"""

import argparse
import json
import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import NoReturn

from understudy import errors
from understudy.errors import UserError
from understudy.serving import supervise
from understudy.serving.live import Settings
from understudy.table import TABLE


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serve.sh", description="Serve the version in a stage with `mlflow models serve`, or live."
    )
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
    live.add_argument("--cache", default=cache, help="keeps the last verified version (default: %(default)s)")
    live.add_argument("--log", default="", metavar="FOLDER", help="keeps accepted rows and answers as Parquet files")
    return parser


def main() -> None:
    args = options().parse_args()
    if not 0 < args.port < 65536:
        raise UserError(f"there is no port {args.port}", "choose a --port from 1 to 65535")
    if args.live:
        _live(args)
    # MLflow takes seconds to load, and --help need not wait for it.
    import mlflow

    from understudy.registry import stages
    from understudy.scoring import scorer
    from understudy.tracking import connection
    from understudy.verification import manifest

    client = connection.connect()
    version = client.get_model_version(args.name, stages.in_stage(client, args.name, args.stage.lower()))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((args.host, args.port))
        except OSError as error:
            raise UserError(
                f"cannot listen on {args.host}:{args.port}: {error.strerror}", "choose another --port"
            ) from None
    where = f"http://{args.host}:{args.port}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--host", args.host, "--port", str(args.port), "--workers", str(args.workers)]
    os.environ["MLFLOW_TRACKING_URI"] = mlflow.get_tracking_uri()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "true"
    os.environ[scorer.VERSION] = str(version.version)
    with manifest.verified(client, version) as copy:
        print(f"{args.name} version {version.version} ({args.stage}) on {where}, Ctrl-C stops it", flush=True)
        supervise.block()
        _become(str(copy), [*command, "--model-uri", str(copy)])


def _live(args: argparse.Namespace) -> NoReturn:
    """Become the live server."""
    if args.workers < 1 or args.poll <= 0:
        raise UserError("--workers has to be at least 1, and --poll above 0", "./serve.sh --help")
    if args.name != TABLE.name:
        from understudy.registry import (
            registered,  # loads MLflow, which takes seconds
        )

        registered.check_name(args.name)
    if args.log:
        Path(args.log).mkdir(0o700, parents=True, exist_ok=True)
    supervise.block()
    settings = Settings(
        folder=mkdtemp(prefix="understudy-"),
        name=args.name,
        stage=args.stage,
        host=args.host,
        port=args.port,
        workers=args.workers,
        poll=args.poll,
        cache=str(Path(args.cache).absolute()),
        log=str(Path(args.log).absolute()) if args.log else "",
    )
    _become(settings.folder, [sys.executable, "-m", "understudy.serving.live", json.dumps(asdict(settings))])


def _become(folder: str, command: list[str]) -> NoReturn:
    """Become the supervisor of a command, which removes the folder when it ends; the signals are blocked."""
    os.execv(sys.executable, [sys.executable, "-m", "understudy.serving.supervise", folder, *command])


if __name__ == "__main__":
    errors.run(main)

"""What `serve.sh` runs: MLflow's own model server on the version that is in a stage."""

import argparse
import os
import socket
import sys

from understudy import errors
from understudy.errors import UserError
from understudy.table import TABLE


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serve.sh", description="Serve the version in a stage with `mlflow models serve`."
    )
    parser.add_argument("--name", default=TABLE.name, help="registered model (default: %(default)s)")
    parser.add_argument(
        "--stage", default="Production", choices=["Staging", "Production"], help="(default: %(default)s)"
    )
    parser.add_argument("--port", default=1234, type=int, help="(default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    parser.add_argument("--workers", default=1, type=int, help="processes (default: %(default)s)")
    return parser


def main() -> None:
    args = options().parse_args()
    # MLflow takes seconds to load, and --help need not wait for it.
    import mlflow

    from understudy import registry, tracking

    client = tracking.connect()
    version = registry.in_stage(client, args.name, args.stage.lower())
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((args.host, args.port))
        except OSError as error:
            raise UserError(
                f"cannot listen on {args.host}:{args.port}: {error.strerror}", "choose another --port"
            ) from None
    print(
        f"{args.name} version {version} ({args.stage}) on http://{args.host}:{args.port}, Ctrl-C stops it", flush=True
    )
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--model-uri", f"models:/{args.name}/{version}", "--host", args.host, "--port", str(args.port)]
    os.environ["MLFLOW_TRACKING_URI"] = mlflow.get_tracking_uri()
    os.execv(sys.executable, [*command, "--workers", str(args.workers)])


if __name__ == "__main__":
    errors.run(main)

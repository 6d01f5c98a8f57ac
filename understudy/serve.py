"""What `serve.sh` runs: MLflow's own model server on a verified copy of the version that is in a stage."""

import argparse
import os
import socket
import sys

from understudy import errors, supervise
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

    from understudy import manifest, registry, tracking

    client = tracking.connect()
    version = client.get_model_version(args.name, registry.in_stage(client, args.name, args.stage.lower()))
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
    with manifest.verified(client, version) as copy:
        print(f"{args.name} version {version.version} ({args.stage}) on {where}, Ctrl-C stops it", flush=True)
        supervise.block()
        # Nothing after this line runs: the supervisor is this process from here on, and removes the copy.
        supervisor = [sys.executable, "-m", "understudy.supervise", str(copy)]
        os.execv(sys.executable, [*supervisor, *command, "--model-uri", str(copy)])


if __name__ == "__main__":
    errors.run(main)

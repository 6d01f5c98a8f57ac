"""The stack's model server: `serve.sh`, once a version is there to serve.

python -m deploy.model [what serve.sh takes]   until then it answers /ping and says what it waits for
"""

import os
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from mlflow import MlflowClient

from understudy import errors, registry, serve, tracking
from understudy.errors import UserError

PAUSE = 2  # seconds between two looks


def is_there(client: MlflowClient, name: str, stage: str) -> bool:
    """Whether a version is in the stage."""
    try:
        return bool(registry.in_stage(client, name, stage.lower()))
    except UserError:
        return False


def main() -> None:
    """Wait, then become what `serve.sh` runs."""
    args = serve.options().parse_args()
    client = tracking.connect()
    if not is_there(client, args.name, args.stage):
        said = f"waiting for a version of {args.name} in {args.stage}\n"
        print(said, end="", flush=True)
        with ThreadingHTTPServer((args.host, args.port), _waiting(said)) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            while not is_there(client, args.name, args.stage):
                time.sleep(PAUSE)
            server.shutdown()
    os.execv(sys.executable, [sys.executable, "-m", "understudy.serve", *sys.argv[1:]])


def _waiting(said: str) -> type[BaseHTTPRequestHandler]:
    class Waiting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(HTTPStatus.OK if self.path == "/ping" else HTTPStatus.SERVICE_UNAVAILABLE)

        def do_POST(self) -> None:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)

        def _answer(self, status: HTTPStatus) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: object) -> None:
            """The health check asks every few seconds."""

    return Waiting


if __name__ == "__main__":
    errors.run(main)

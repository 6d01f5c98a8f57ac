# PYTHON_ARGCOMPLETE_OK
"""A Dask scheduler and two workers of one core each on this machine, until Ctrl-C.

python -m deploy.cluster   (make cluster); only this machine reaches them, by 127.0.0.1
"""

import argparse
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from understudy import errors, terminal
from understudy.errors import UserError

WORKERS = 2


def options() -> argparse.ArgumentParser:
    """The port alone: all else follows from this machine."""
    parser = argparse.ArgumentParser(prog="python -m deploy.cluster", **terminal.explained(__doc__))
    parser.add_argument("--port", type=int, default=8786, help="of the scheduler (default: %(default)s)")
    return parser


@contextmanager
def local(port: int) -> Iterator[str]:
    """Processes that end with the block; yields the scheduler's address.

    Raises:
        UserError: Somebody listens on the port.
    """
    from distributed import LocalCluster

    logging.getLogger("distributed.deploy").setLevel(logging.ERROR)  # of a port that is taken it says more than we do
    # A worker's memory is its share of the machine's by its cores, which is Dask's own default.
    shape = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    try:
        cluster = LocalCluster(host="127.0.0.1", scheduler_port=port, **shape)
    except RuntimeError as error:
        problem = f"port {port} of this machine is taken"
        raise UserError(problem, f"python -m deploy.cluster --port {port + 1}") from error
    with cluster:
        yield str(cluster.scheduler_address)


def main() -> None:
    """Start them, and wait."""
    args = terminal.parse(options())
    with local(args.port) as address:
        print(f"a Dask scheduler at {address}, with {WORKERS} workers: python train.py --cluster {address}", flush=True)
        while True:  # signal.pause() sleeps on when a signal comes just before, or to another thread
            time.sleep(1)


if __name__ == "__main__":
    errors.run(main)

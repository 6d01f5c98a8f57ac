"""How often a good version on probation is sent back, and how many requests it takes to see a bad one.

python -m bench.probation                    some minutes on two cores
python -m bench.probation --families 10000   with smaller standard errors

Each family is a version on its probation: its requests are simulated, and looked at by the functions that decide, at
every look until one sends it back.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed

from understudy.figures.metrics import Floats
from understudy.probation import looks
from understudy.probation.looks import FAILED, REFUSED, SLOW, Share
from understudy.schema.limits import Probation

BEFORE = 1_000  # requests of the version before
HELD_OUT = 186
NOISE = 0.12  # standard deviation of how far two versions are apart on a row
BASE = {FAILED: 0.001, REFUSED: 0.02, SLOW: 0.002}  # the shares of both versions that go wrong in any case
SHIFT = Probation().shift


@dataclass(frozen=True)
class World:
    """What a version does on its probation, beside the one before.

    Args:
        failed: Points by which its share of answers with 5xx is higher.
        refused: The same of refused requests.
        slow: The same of slow answers.
        shift: How far its mean score is from what is expected.
        before: Requests of the version before; 0 if its counts are lost.
        rows: Of each request; they are alike.
    """

    failed: float = 0
    refused: float = 0
    slow: float = 0
    shift: float = 0
    before: int = BEFORE
    rows: int = 1


GOOD = {
    "1,000 requests before": World(),
    "100 requests before": World(before=100),
    "no counts of the one before": World(before=0),
    "requests of 20 rows": World(rows=20),
    "scores 0.09 off, bound 0.1": World(shift=0.09),
}
BAD = {
    "refusals +5 points": World(refused=0.05),
    "refusals +20 points": World(refused=0.2),
    "1 % 5xx": World(failed=0.01),
    "1 % 5xx, 10,000 before": World(failed=0.01, before=10_000),
    "5 % 5xx": World(failed=0.05),
    "5 % slow": World(slow=0.05),
    "scores shifted by 0.2": World(shift=0.2),
    "refusals +20, no counts": World(refused=0.2, before=0),
    "5 % 5xx, no counts": World(failed=0.05, before=0),
}


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=1_000, type=int, help="of each kind (default: %(default)s)")
    parser.add_argument("--requests", default=5_000, type=int, help="of a probation (default: %(default)s)")
    return parser


def main() -> None:
    args = options().parse_args()
    print(f"per cent of {args.families:,} versions sent back within {args.requests:,} requests (standard error)")
    for title, worlds in (("good versions", GOOD), ("bad versions", BAD)):
        print(f"\n{title:<30}{'sent back':>14}{'within 1,000':>16}{'half by':>10}{'90 % by':>10}")
        for name, world in worlds.items():
            tasks = (delayed(sent_back)(world, args.requests, seed) for seed in range(args.families))
            ends = np.array(Parallel(n_jobs=-1)(tasks))
            times = "".join(f"{quantile(ends, share):>10}" for share in (0.5, 0.9))
            print(f"{name:<30}{share(ends < math.inf):>14}{share(ends <= 1_000):>16}{times}", flush=True)


def sent_back(world: World, requests: int, seed: int) -> float:
    """After how many requests a version is sent back; infinite if it stands."""
    rng = np.random.default_rng(seed)
    more = {FAILED: world.failed, REFUSED: world.refused, SLOW: world.slow}
    now = {kind: np.cumsum(rng.random(requests) < BASE[kind] + more[kind]) for kind in BASE}
    before = {kind: Share(int(rng.binomial(world.before, BASE[kind])), world.before) for kind in BASE}
    apart, held_out = differences(world, requests, rng), rng.normal(0, NOISE, HELD_OUT)
    for number, size in enumerate(sizes(requests), 1):
        signs = [looks.share(kind, Share(int(now[kind][size - 1]), size), before[kind], number) for kind in BASE]
        of_request = np.repeat(np.arange(size), world.rows)
        signs.append(looks.scores(apart[: size * world.rows], of_request, held_out, SHIFT, number))
        if any(sign.is_bad for sign in signs):
            return size
    return math.inf


def sizes(requests: int) -> Sequence[int]:
    """The looks of a probation, the last one at all requests."""
    last = looks.number(requests)
    return [*map(looks.size, range(1, last + 1)), requests]


def differences(world: World, requests: int, rng: np.random.Generator) -> Floats:
    """The scores of the version less those of the one before, half of whose noise the rows of a request share."""
    shared = np.repeat(rng.normal(0, NOISE / math.sqrt(2), requests), world.rows)
    return world.shift + shared + rng.normal(0, NOISE / math.sqrt(2), requests * world.rows)


def share(of: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> str:
    """A share in per cent, with its standard error."""
    value = float(of.mean())
    return f"{100 * value:.2f} ({100 * math.sqrt(value * (1 - value) / len(of)):.2f})"


def quantile(ends: Floats, share: float) -> str:
    """How many requests it takes until a share of all is sent back; "-" if fewer are."""
    value = float(np.quantile(ends, share, method="inverted_cdf"))
    return "-" if math.isinf(value) else f"{value:,.0f}"


if __name__ == "__main__":
    main()

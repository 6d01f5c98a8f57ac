"""How far the bounds of a bootstrap interval move from seed to seed, in shares of its width.

python -m bench.intervals

The interval is that of the ROC AUC on 1,000 rows that are drawn once. Of a percentile q over so many resamples the
standard deviation is about sqrt(q (1 - q) / resamples) / density (van der Vaart, Asymptotic Statistics, 1998, 21.2).
"""

import math
from statistics import NormalDist

import numpy as np

from understudy.figures import metrics

ROWS, SEEDS, BOUNDS = 1_000, 200, (0.025, 0.975)


def main() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(ROWS) < 0.7).astype(int)
    scores, normal = labels + rng.normal(0, 1.2, ROWS), NormalDist()
    low, high = map(normal.inv_cdf, BOUNDS)
    for resamples in (200, 400, 1_000, 2_000):
        draws = [metrics.areas(labels, [scores], resamples, seed)[1][0] for seed in range(SEEDS)]
        bounds = np.quantile(draws, BOUNDS, axis=1)
        moved = bounds.std(axis=1) / np.diff(bounds.mean(axis=1), axis=0)
        expected = math.sqrt(BOUNDS[0] * BOUNDS[1] / resamples) / normal.pdf(low) / (high - low)
        print(f"{resamples:>5} resamples: {moved[0]:.1%} and {moved[1]:.1%} of the width, in theory {expected:.1%}")


if __name__ == "__main__":
    main()

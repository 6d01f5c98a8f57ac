"""What a threshold costs on held-out rows by the way it is chosen, over many splits of one table.

python -m bench.threshold --data FILE
"""

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd

from understudy import families
from understudy.reading import table_rows
from understudy.scoring import pipelines
from understudy.table import TABLE
from understudy.training import search

COSTS = [(1, 1), (1, 3), (3, 1)]  # of a false positive and of a false negative


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=TABLE.path, help="(default: %(default)s)")
    parser.add_argument("--splits", type=int, default=15, help="(default: %(default)s)")
    args = parser.parse_args()
    rows = table_rows.read(TABLE, args.data)
    costs_by_split = [
        {"family": name, "costs": f"{costs[0]} to {costs[1]}", **one_split(rows, name, costs, seed)}
        for name in search.choose("all")[:-1]
        for costs in COSTS
        for seed in range(args.splits)
    ]
    groups = pd.DataFrame(costs_by_split).groupby(["family", "costs"])
    columns = ["break-even", "cheapest", "chosen"]
    print("mean cost of a held-out row by each threshold:")
    print(groups[columns].mean().round(4).to_string())
    print("\nstandard deviation of the threshold over the splits:")
    print(groups[[f"{column} at" for column in columns[1:]]].std().round(3).to_string())


def one_split(rows: pd.DataFrame, name: str, costs: tuple[int, int], seed: int) -> dict[str, float]:
    """Each way's threshold, and what it costs on the rows that this split holds out."""
    table = replace(TABLE, split_seed=seed, false_positive_cost=costs[0], false_negative_cost=costs[1])
    training, held_out = table.split(rows, pipelines.FOLDS)
    family = families.FAMILIES[name]
    searched = search.search(table, training, family, family.quick, seed, jobs=1)
    labels, probabilities = table.labels(held_out), pipelines.positive(searched.pipeline, held_out, table)
    curve = searched.thresholds
    ways = {
        "break-even": table.break_even,
        "cheapest": float(curve["threshold"].iloc[curve["cost"].argmin()]),
        "chosen": searched.pipeline[-1].threshold,
    }
    measured: dict[str, float] = {}
    for way, at in ways.items():
        wrong = np.where(labels == 1, costs[1] * (probabilities < at), costs[0] * (probabilities >= at))
        measured |= {way: float(wrong.mean()), f"{way} at": at}
    return measured


if __name__ == "__main__":
    main()

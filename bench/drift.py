"""How often the monitor alarms, by windows in which the truth is known, and how long that takes.

python -m bench.drift                    some minutes on two cores
python -m bench.drift --reference 428    against as many rows as the project's own table has to train on

Each window has a reference, a model and held-out rows of its own, all drawn as data/make_loans.py draws the table. The
other tests see the same windows: each column's values alone by Kolmogorov-Smirnov or chi-square at 5 %, as many tools
have it, and bands of the stability index.
"""

import argparse
import math
import runpy
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import special
from sklearn.ensemble import RandomForestClassifier

from bench import gate
from understudy.figures.metrics import Labels, Scored
from understudy.monitoring import drift, outcomes
from understudy.scoring import pipelines
from understudy.table import TABLE

MAKER = Path(__file__).parents[1] / "data" / "make_loans.py"
AREA, HELD_OUT = 0.80, 186
Shift = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", default=200, type=int, help="of each kind (default: %(default)s)")
    parser.add_argument("--rows", default=500, type=int, help="of a window (default: %(default)s)")
    parser.add_argument("--reference", default=5_000, type=int, help="rows of the training (default: %(default)s)")
    return parser


def same(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return rows


def richer(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Both incomes are a fifth higher."""
    return rows.assign(**{name: rows[name] * 1.2 for name in ("ApplicantIncome", "CoapplicantIncome")})


def more(column: str, value: str) -> Shift:
    """A tenth of all rows has a value that had another one."""

    def shift(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        others = rows.index[rows[column] != value]
        moved = rng.choice(others, min(len(rows) // 10, len(others)), replace=False)
        return rows.assign(**{column: rows[column].where(~rows.index.isin(moved), value)})

    return shift


def turned(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The largest loans are where the smallest were, so that the poor have them; each column keeps its values."""
    order = rows["LoanAmount"].dropna().sort_values().index
    return rows.assign(LoanAmount=pd.Series(rows["LoanAmount"][order[::-1]].to_numpy(), index=order))


SHIFTS: dict[str, Shift] = {
    "no drift": same,
    "incomes +20 %": richer,
    "one share 22 to 32 %": more("Education", "Not Graduate"),
    "one share 38 to 48 %": more("Property_Area", "Semiurban"),
    "loans against incomes": turned,
}


def main() -> None:
    args = options().parse_args()
    held_out = round(args.reference * TABLE.held_out / (1 - TABLE.held_out))
    sizes = [args.reference, held_out, args.rows]
    pool: pd.DataFrame = runpy.run_path(str(MAKER))["make"](args.windows * sum(sizes))
    parts = [pool[start : start + sum(sizes)].reset_index(drop=True) for start in range(0, len(pool), sum(sizes))]
    tasks = (delayed(compared)(part, sizes, seed) for seed, part in enumerate(parts))
    windows = pd.concat(Parallel(n_jobs=-1)(tasks))
    title = f"{args.windows} windows of {args.rows} rows against {args.reference:,}"
    print(f"{title}: per cent that alarm, with their standard error\n")
    tests = list(windows.columns.drop(["shift", "seconds"]))
    print(f"{'':<22}" + "".join(f"{test:>16}" for test in tests))
    for name, of in windows.groupby("shift", sort=False):
        print(f"{name:<22}" + "".join(f"{share(of[test]):>16}" for test in tests))
    print(f"\nthe monitor's tests take {windows['seconds'].median():.2f} s a window (median)")
    outcomes_of(args.windows)


def outcomes_of(times: int) -> None:
    print(f"\nper cent of {times} windows whose outcome is worse than that of {HELD_OUT} held-out rows, by exit 6")
    for labels in (100, 500):
        for area in (AREA, AREA - 0.1):
            trials = (delayed(is_worse)(np.random.default_rng(seed), labels, area) for seed in range(times))
            alarms = pd.Series(Parallel(n_jobs=-1)(trials))
            print(f"{labels:>6} labels, AUC {AREA:.2f} before and {area:.2f} now: {share(alarms)}", flush=True)


def is_worse(rng: np.random.Generator, labels: int, area: float) -> bool:
    return bool(outcomes.measure(*answered(rng, labels, area), *answered(rng, HELD_OUT, AREA)).worse)


def answered(rng: np.random.Generator, rows: int, area: float) -> tuple[Labels, Scored]:
    """Labels, and answers with a true AUC, whose probabilities are right where that is `AREA`."""
    labels = (rng.random(rows) < gate.POSITIVE).astype(int)
    scores, apart = rng.normal(size=rows) + gate.apart(area) * labels, gate.apart(AREA)
    return labels, Scored(special.expit(special.logit(gate.POSITIVE) + apart * scores - apart**2 / 2), 0.5)


def compared(rows: pd.DataFrame, sizes: list[int], seed: int) -> pd.DataFrame:
    """For each shift what alarms in a window, a row for each."""
    starts = np.cumsum([0, *sizes])
    reference, held_out, window = (rows[start:end] for start, end in pairwise(starts))
    forest = RandomForestClassifier(n_estimators=100, max_depth=5, random_state=0)
    model = pipelines.build(TABLE, forest).fit(reference, reference[TABLE.target.name])
    before = pipelines.positive(model, held_out, TABLE)
    alarms = []
    for name, shift in SHIFTS.items():
        shifted = shift(window, np.random.default_rng(seed))
        scores = pipelines.positive(model, shifted, TABLE)
        started = time.perf_counter()
        columns = drift.compare_columns(TABLE.columns, reference, shifted)
        kinds = {
            "columns": any(column.alarm for column in columns),
            "scores": drift.compare_scores(before, scores).alarm,
            "together": drift.compare_together(TABLE.columns, reference, shifted).alarm,
        }
        seconds = time.perf_counter() - started
        sizes_of = [column.psi or 0 for column in columns]
        others = {
            "p < 0.05": any(column.p is not None and column.p < 0.05 for column in columns),
            "PSI > 0.1": max(sizes_of) > 0.1,
            "PSI > 0.2": max(sizes_of) > 0.2,
        }
        alarms.append({"shift": name, "exit 5": any(kinds.values()), **kinds, **others, "seconds": seconds})
    return pd.DataFrame(alarms)


def share(alarms: "pd.Series[bool]") -> str:
    """How many alarm, in per cent, with the standard error."""
    of = float(alarms.mean())
    return f"{100 * of:.1f} ({100 * math.sqrt(of * (1 - of) / len(alarms)):.1f})"


if __name__ == "__main__":
    main()

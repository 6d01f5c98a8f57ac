"""Which of scikit-learn's classifiers have one structure whatever rows they have learned from, and what that costs.

python -m bench.inspection [FILE]   on a table's two sides, the sample's by default
"""

import sys
import time
import warnings

from sklearn.utils import all_estimators
from skops import io as skops

from understudy.families import Family
from understudy.reading import table_rows
from understudy.table import TABLE
from understudy.verification import reference
from understudy.verification.skops_structure import structure


def main() -> None:
    warnings.simplefilter("ignore")
    rows = table_rows.read(TABLE, sys.argv[1] if len(sys.argv) > 1 else TABLE.path)
    training, held_out = TABLE.split(rows)
    known = trained = same = 0
    for name, classifier in all_estimators(type_filter="classifier"):
        try:
            family = Family(classifier(), {}, {})
        except TypeError:  # it is made around another one
            continue
        known += 1
        try:
            models_of = [skops.dumps(pipeline) for pipeline in reference.shapes(TABLE, training, family)]
        except Exception as error:
            print(f"{name}: cannot be trained on this table ({type(error).__name__})")
            continue
        trained += 1
        started = time.perf_counter()
        wanted = set().union(*(structure(skops.dumps(each)) for each in reference.shapes(TABLE, held_out, family)))
        others = set().union(*map(structure, models_of)) - wanted
        same += not others
        took = time.perf_counter() - started
        print(f"{name}: {f'{len(others)} places differ' if others else 'the same'}, {took:.2f} s")
    print(f"{known} classifiers, {trained} can be trained on this table, {same} of them have one structure")


if __name__ == "__main__":
    main()

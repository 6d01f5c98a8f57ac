"""The least that training can take: import what it imports, and fit its estimators once on the same table."""

from pathlib import Path

import mlflow.sklearn  # noqa: F401
from matplotlib.figure import Figure  # noqa: F401

from understudy import families
from understudy.reading import table_rows
from understudy.scoring import pipelines
from understudy.table import TABLE

if __name__ == "__main__":
    training, _ = TABLE.split(table_rows.read(TABLE, Path(__file__).parents[1] / TABLE.path))
    for family in families.FAMILIES.values():
        pipelines.build(TABLE, family.classifier).fit(training, TABLE.labels(training))

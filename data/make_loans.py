"""Make loans.csv, the synthetic stand-in for the Loan Prediction table: `python data/make_loans.py`.

The same seed gives the same bytes. Shares of categories and of missing cells follow the published table's
marginals; the rows, and how the decision depends on them, are made up here.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

ROWS = 614
SEED = 20_260_301
MISSING = {
    "Gender": 13,
    "Married": 3,
    "Dependents": 15,
    "Self_Employed": 32,
    "LoanAmount": 22,
    "Loan_Amount_Term": 14,
    "Credit_History": 50,
}


def make(rows: int) -> pd.DataFrame:
    """Draw the table, one row per applicant, in the columns and units of data/README.md."""
    rng = np.random.default_rng(SEED)
    married = rng.random(rows) < 0.65
    graduate = rng.random(rows) < 0.78
    self_employed = rng.random(rows) < 0.14
    credit_history = rng.random(rows) < 0.84
    area = rng.choice(["Rural", "Semiurban", "Urban"], rows, p=[0.29, 0.38, 0.33])
    dependents = np.where(
        married,
        rng.choice(["0", "1", "2", "3+"], rows, p=[0.45, 0.20, 0.24, 0.11]),
        rng.choice(["0", "1", "2", "3+"], rows, p=[0.84, 0.10, 0.04, 0.02]),
    )
    income = np.exp(rng.normal(8.05 + 0.25 * graduate + 0.2 * self_employed, 0.55)).round()
    second_income = np.where(rng.random(rows) < 0.35 + 0.3 * married, np.exp(rng.normal(7.6, 0.6, rows)), 0).round()
    loan = np.exp(0.55 * np.log(income + second_income) + rng.normal(0.15, 0.38, rows)).round()
    months = rng.choice([60, 120, 180, 240, 300, 360, 480], rows, p=[0.01, 0.01, 0.07, 0.01, 0.02, 0.85, 0.03])
    score = (
        -2.9
        + 3.6 * credit_history
        + 0.7 * (area == "Semiurban")
        + 0.5 * married
        + 0.4 * graduate
        - 0.9 * (np.log(1000 * loan / (income + second_income)) - 3.2)
        + rng.logistic(0, 1, rows)
    )
    table = pd.DataFrame(
        {
            "Loan_ID": [f"LP{number:06d}" for number in 1001 + np.cumsum(rng.integers(1, 6, rows))],
            "Gender": np.where(rng.random(rows) < 0.70 + 0.18 * married, "Male", "Female"),
            "Married": np.where(married, "Yes", "No"),
            "Dependents": dependents,
            "Education": np.where(graduate, "Graduate", "Not Graduate"),
            "Self_Employed": np.where(self_employed, "Yes", "No"),
            "ApplicantIncome": income.astype(int),
            "CoapplicantIncome": second_income.astype(int),
            "LoanAmount": pd.array(loan, dtype="Int64"),
            "Loan_Amount_Term": pd.array(months, dtype="Int64"),
            "Credit_History": pd.array(credit_history.astype(int), dtype="Int64"),
            "Property_Area": area,
            "Loan_Status": np.where(score > 0, "Y", "N"),
        }
    )
    for column, count in MISSING.items():
        table.loc[rng.choice(rows, count * rows // ROWS, replace=False), column] = None
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=ROWS, type=int, help="(default: %(default)s)")
    parser.add_argument("--to", default=Path(__file__).with_name("loans.csv"), help="(default: %(default)s)")
    args = parser.parse_args()
    make(args.rows).to_csv(args.to, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()

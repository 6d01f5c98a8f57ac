"""The table: the one place that says what a row is. Swap it for your own; the rest follows."""

from understudy.schema.columns import Category, Number
from understudy.schema.declaration import Feature, Limits, Table

TABLE = Table(
    name="Loan_prediction",
    path="data/loans.csv",
    identifier="Loan_ID",
    target=Category("Loan_Status", ("N", "Y")),
    columns=(
        Category("Gender", ("Female", "Male"), missing=True, sensitive=True),
        Category("Married", ("No", "Yes"), missing=True, sensitive=True),
        Category("Dependents", ("0", "1", "2", "3+"), missing=True),
        Category("Education", ("Graduate", "Not Graduate")),
        Category("Self_Employed", ("No", "Yes"), missing=True),
        Number("ApplicantIncome", "currency units a month", 0, 1_000_000),
        Number("CoapplicantIncome", "currency units a month", 0, 1_000_000),
        Number("LoanAmount", "thousand currency units", 1, 100_000, missing=True),
        Number("Loan_Amount_Term", "months", 1, 600, missing=True),
        Category("Credit_History", (0, 1), missing=True),
        Category("Property_Area", ("Rural", "Semiurban", "Urban")),
    ),
    features=(
        Feature("Gender"),
        Feature("Married"),
        Feature("Dependents"),
        Feature("Education"),
        Feature("Self_Employed"),
        Feature("LoanAmount", log=True),
        Feature("Loan_Amount_Term"),
        Feature("Credit_History"),
        Feature("Property_Area"),
        Feature("TotalIncome", of=("ApplicantIncome", "CoapplicantIncome"), log=True),
    ),
    limits=Limits(margin=0.05),
)

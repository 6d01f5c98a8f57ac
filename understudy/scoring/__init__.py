"""What runs inside a served model: rows of a request in; labels, probabilities or what moved them out.

It imports `understudy.schema` and `understudy.errors`, since these three go with every model. Others use `scorer` to
answer, `pipelines` to build what is fitted, and `model_files` to save it as a model, of which MLflow loads `flavor`;
`conversion` writes what `predictors` compute with, `boosters` reads what LightGBM and XGBoost write.
"""

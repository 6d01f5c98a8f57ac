"""What runs inside a served model: rows of a request in; labels, probabilities or what moved them out.

It imports `understudy.schema` and `understudy.errors`, since these three go with every model. Others use `scorer` to
answer, `pipelines` to build what is fitted, and `flavor` to save it as a model; `conversion` and `scorer_files` write
what `predictors` compute with, `boosters` reads what LightGBM and XGBoost write.
"""

"""What runs inside a served model: rows of a request in; labels, probabilities or their reasons out.

It imports `understudy.schema` and `understudy.errors`, since these three go with every model. Others use `scorer` to
answer, `pipelines` for the scikit-learn form, `packing` and `flavor` to save a model.
"""

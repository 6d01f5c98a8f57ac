"""Scores files of rows with a registered version: read in batches, checked, scored, written whole or not at all.

It imports `understudy.reading`, `schema`, `scoring`, `tracking` and `registry`. Others use `inputs` for what is to be
scored, `outputs` for where the answers go, `job` to do it, and `record` for what MLflow keeps of it. `arrow_form`
applies the rules of a table to Arrow arrays.
"""

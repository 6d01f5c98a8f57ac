"""Scores rows of files and databases with a registered version, by parts that are complete or absent.

It imports `understudy.reading`, `schema`, `scoring`, `verification`, `tracking` and `registry`. Others use `inputs` and
`queries` for what is to be scored, `outputs` for where the scores go, `parts` for what is between, `job` to do it here
or on a cluster, and `record` for what MLflow keeps of it. `arrow_form` applies the rules of a table to Arrow arrays.
"""

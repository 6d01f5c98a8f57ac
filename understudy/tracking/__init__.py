"""MLflow's tracking: the only room that writes runs.

It imports `understudy.schema`, `figures` and `scoring`. Others use `connection` for the store, `runs` and
`family_runs` for runs, `provenance` for what they were made from, `batch_rows` for the rows that a batch keeps,
`decisions` for the runs of promotions.
"""

"""MLflow's tracking: the only room that writes runs.

It imports `understudy.schema`, `figures` and `scoring`. Others use `connection` for the store, `experiments`, `runs`
and `family_runs` for what is in it, `provenance` for what a run was made from, `batch_rows` for the rows that a batch
keeps, `naming` for addresses and names without MLflow, and `waiting` for writes that others may be in the way of.
"""

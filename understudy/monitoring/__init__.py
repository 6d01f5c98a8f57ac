"""Is the world still the one that a version has learned from, and do its answers come true?

It imports the rooms above it. Others use `window` for the rows that a version has answered and those of its training,
`labels` for what came true, `report.compare` for all that is found in a window, and `record` for what MLflow keeps of
it. `drift` compares samples, and `outcomes` answers with labels: arrays and frames in, p-values, metrics and sizes out.
"""

"""Is the world still the one that a version has learned from?

`drift` compares later rows, and what a version answered to them, with the rows of its training: arrays and frames in,
p-values and sizes out. It imports the rooms above it. Others use `drift.compare_columns`, `compare_scores` and
`compare_together`; `monitor.py` puts them together.
"""

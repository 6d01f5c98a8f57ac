"""Drafts `understudy/table.py` from a table that nobody has declared yet: `python -m understudy.declare`.

It imports `understudy.reading` and the rooms below it, and never `table`, which the shell has emptied by then.
Nobody imports it. `kinds` judges each column by its cells, `questions` what its name and its bond with the target
suggest, `draft` puts the table together, and `source` writes it as Python.
"""

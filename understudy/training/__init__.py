"""How a family becomes a model: the search over its grid, its threshold, and its evaluation on held-out rows.

It imports `understudy.verification` and the rooms below it. Others use `search`, `evaluation`, and `selection` for the
best family of a batch.
"""

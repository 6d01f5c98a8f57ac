"""Registered versions: where they are, how they move, what was decided about them, and whether all of it fits.

It imports `understudy.verification` and the rooms below it. Others use `registered` and `stages` to read, `promotion`
to move, `records` and `lineage` to tell, `audit` to check, `reproduction` to train a version again.
"""

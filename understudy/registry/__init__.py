"""Registered versions: where they are, how they move, what was decided about them, and whether all of it fits together.

It imports `understudy.verification` and the rooms below it. Others use `registration` to make a version, `registered`
and `stages` to read, `promotion` to move, `records` and `history` to tell, `audit` to check, `reproduction` to train a
version again.
"""

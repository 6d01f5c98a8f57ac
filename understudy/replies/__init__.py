"""What the verbs of `promote.py` answer: what a program reads of it, and what people read.

It imports the rooms above it. Others use `moves` for what came of a verb that moves a version, and `state` for what is
where, what happened, and what does not fit together.
"""

"""May a version go where it is asked to go? `evidence` collects, `checks` measure, `rules` decide.

It imports `understudy.registry` and the rooms below it. Others use `evidence.decide`.
"""

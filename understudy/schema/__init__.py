"""What a row is: columns, the tables that they make up, and what is wrong with rows.

It imports `understudy.errors` alone, since its modules go with every model. Others use `columns` and `declaration` to
declare rows, `faults` to check them, and `compatibility` to describe them and to learn what a new table breaks for
those who send rows to the old one. `spelling` knows in how many ways people write the same.
"""

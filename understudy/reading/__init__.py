"""Brings the rows of a table from files, object stores and databases, cast and checked by the table's declaration.

It imports `understudy.schema`, and is no part of a served model. Others use `table_rows.read` for rows to train on or
to compare versions on, and `reader` for what an address names and how it may be shown.
"""

"""From a table to a served model: the package behind the scripts."""

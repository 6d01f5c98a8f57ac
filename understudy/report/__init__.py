"""Pages and model cards that need no network and no script: plain values in, HTML, SVG and Markdown out.

It imports `schema`, `families` and `figures`. Others use `templates/base.css`, which the pages of servers share.
"""

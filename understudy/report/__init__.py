"""Pages and model cards that need no network and no script: plain values in, HTML, SVG and Markdown out.

It imports `schema`, `families` and `figures`. Others use `batch_page` with the families of `findings`, and `page.FILE`;
the pages of servers share `templates/base.css`.
"""

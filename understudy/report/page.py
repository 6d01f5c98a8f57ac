"""Pages of one file each: a template with the shared stylesheet inside, which needs neither network nor script."""

import sys
import traceback
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # most who ask for records write no page
    from jinja2 import Environment

FILE = "report.html"  # what a run calls its page


def render(template: str, title: str, **values: object) -> str:
    """The HTML of a page.

    Args:
        template: The name of its file among the templates.
        title: What the page is about, in a line.
        values: What the template asks for; texts are escaped, charts are not.
    """
    return _environment().get_template(template).render(title=title, **values)


def drawn(draw: Callable[[], str]) -> dict[str, str]:
    """A page by the name of its file; none where it cannot be drawn, since what it tells of counts all the same.

    Args:
        draw: Returns the page's HTML. What it raises is a bug, and goes to stderr with its traceback.
    """
    try:
        return {FILE: draw()}
    except Exception:
        traceback.print_exc()
        print(f"warning: {FILE} could not be drawn, and is left out", file=sys.stderr)
        return {}


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    options = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    return Environment(loader=PackageLoader("understudy.report"), autoescape=True, **options)  # type: ignore[arg-type]

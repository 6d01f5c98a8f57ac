"""Pages of one file each: a template with the shared stylesheet inside, which needs neither network nor script."""

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


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    options = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    return Environment(loader=PackageLoader("understudy.report"), autoescape=True, **options)  # type: ignore[arg-type]

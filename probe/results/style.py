"""What the HTML pages of this software share: style and templates."""

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def page_style() -> str:
    """CSS of colours in light and dark, type, focus and panels; a page appends its own."""
    return (resources.files("probe.results") / "assets" / "page.css").read_text(encoding="utf-8")


def page_templates(package: str) -> "Environment":
    """Jinja templates in the `assets` of a package, autoescaped: texts of data and models are shown, never run.

    Args:
        package: Its full name.

    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

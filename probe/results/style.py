"""Style that every HTML page of this software shares."""

from importlib import resources


def page_style() -> str:
    """CSS of colours in light and dark, type, focus and panels; a page appends its own."""
    return (resources.files("probe.results") / "assets" / "page.css").read_text(encoding="utf-8")

"""Griffe extension for the API pages: public names are those of the packages' stubs, and doctests are code."""

import ast
import re
from pathlib import Path
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", flags=re.MULTILINE)
"""A doctest with what it prints, up to the next empty line."""


class ApiPages(griffe.Extension):
    """What griffe does not read from source: `__all__`, which `lazy_loader` computes from `__init__.pyi`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the doctests of a docstring, which Markdown takes for quotations."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(r"```python\n\g<0>\n```", obj.docstring.value)

    def on_module(self, *, mod: griffe.Module, **_: Any) -> None:
        """Export what the module's stub imports."""
        mod.members.pop("lazy_loader", None)
        stub = Path(str(mod.filepath)).with_suffix(".pyi")
        if stub.exists():
            imports = (
                node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)
            )
            mod.exports = [alias.asname or alias.name for node in imports for alias in node.names]

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Leave out attributes without a docstring: arguments of the constructor, described as such."""
        own = [(name, member) for name, member in cls.members.items() if member.is_attribute]
        for name in [name for name, member in own if not member.has_docstring]:
            cls.del_member(name)

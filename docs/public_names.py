"""Griffe extension for the API pages: the public names of a lazily loading package are those of its `__init__.pyi`."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe


class PublicNames(griffe.Extension):
    """Exports of every package from its stub: `lazy_loader` computes `__all__`, which griffe cannot read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Set the exports of a package and of the packages in it; hide the plain attributes of their classes."""
        for module in _modules(pkg):
            module.members.pop("lazy_loader", None)
            stub = Path(str(module.filepath)).with_suffix(".pyi")
            if stub.exists():
                imports = (node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom))
                module.exports = [alias.asname or alias.name for node in imports for alias in node.names]
            for cls in module.classes.values():
                if not cls.is_alias:
                    for name in [name for name, member in cls.attributes.items() if not member.has_docstring]:
                        cls.del_member(name)


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for below in module.modules.values():
        if not below.is_alias:
            yield from _modules(below)

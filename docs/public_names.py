"""Griffe extension for the API pages: the public names of a lazily loading package are those of its `__init__.pyi`."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe


class PublicNames(griffe.Extension):
    """Exports of every package from its stub: `lazy_loader` computes `__all__`, which griffe cannot read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Set the exports of a package and of the packages in it."""
        for package in _packages(pkg):
            package.members.pop("lazy_loader", None)
            stub = Path(str(package.filepath)).with_suffix(".pyi")
            if stub.exists():
                imports = (node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom))
                package.exports = [alias.asname or alias.name for node in imports for alias in node.names]


def _packages(package: griffe.Module) -> Iterator[griffe.Module]:
    yield package
    for module in package.modules.values():
        if not module.is_alias and module.is_init_module:
            yield from _packages(module)

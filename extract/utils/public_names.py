"""Names of classes that stay the same when a class moves between modules."""

import importlib


def public_name(kind: type) -> str:
    """Dotted name of a class in configs and checkpoints.

    A class that its top-level package exports has that name; any other class has its module's.

    >>> from extract import NIAH
    >>> public_name(NIAH)
    'extract.NIAH'

    """
    package = kind.__module__.partition(".")[0]
    if getattr(importlib.import_module(package), kind.__name__, None) is kind:
        return f"{package}.{kind.__name__}"
    return f"{kind.__module__}.{kind.__qualname__}"

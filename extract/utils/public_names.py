"""Names of classes that stay the same when a class moves between modules."""

import sys


def public_name(kind: type) -> str:
    """Dotted name of a class in configs and checkpoints.

    A class that its top-level package exports has that name; any other class has its module's, also where the module
    is not one that can be imported, as of a class that was read from a file.

    >>> from extract import NIAH
    >>> public_name(NIAH)
    'extract.NIAH'
    >>> public_name(type("Probe", (), {"__module__": "mine.probes"}))
    'mine.probes.Probe'

    """
    package = kind.__module__.partition(".")[0]
    if getattr(sys.modules.get(package), kind.__name__, None) is kind:
        return f"{package}.{kind.__name__}"
    return f"{kind.__module__}.{kind.__qualname__}"

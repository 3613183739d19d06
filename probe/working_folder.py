"""The working folder is not on the import path when `python -m probe` begins: no file in it is taken for a library.

It is imported before everything else and needs only modules that every interpreter has loaded. Modules of a user's own
are found after all libraries: see `probe.cli.import_path`.
"""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def started_as_module() -> bool:
    """Whether this import is the beginning of `python -m probe`: Python sets `sys.argv[0]` once the module is found."""
    if sys.argv[:1] != ["-m"] or sys.flags.safe_path:
        return False
    return sys.orig_argv[-len(sys.argv)].removeprefix("-m").partition(".")[0] == __name__.partition(".")[0]


def leave_import_path() -> None:
    """Take away the folder that `python -m` puts first; further processes begin without it.

    A clone that is not installed is itself this folder: the packages beside this one are loaded from it, and it stays
    at the end, where further processes find this package.
    """
    if not sys.path or sys.path[0] != os.getcwd():  # noqa: PTH109 (loads libraries)
        return
    folder = sys.path.pop(0)
    if os.path.dirname(os.path.dirname(os.path.abspath(__file__))) != folder:  # noqa: PTH100, PTH120 (loads libraries)
        os.environ["PYTHONSAFEPATH"] = "1"
        return
    sys.path.append(folder)
    for name in ("extract", "datamodules"):
        if (spec := PathFinder.find_spec(name, [folder])) and spec.loader:
            sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])

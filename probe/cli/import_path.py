"""The import path of the command: libraries first, then modules of the working folder, or none of these."""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

PROGRAMS = ("lightning", "retrieval-heads")
IN_WORKERS = "RETRIEVAL_HEADS_WORKING_FOLDER"
"""Environment variable that lets spawned processes import modules of the working folder."""


class WorkingFolder(MetaPathFinder):
    """Finds a user's own modules (tasks, probes) where no library has the name.

    As the last entry of `sys.path` the folder would still come before a library's namespace package, and give modules
    that Python has on other platforms only.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Spec of a module of the working folder."""
        if path is not None or name in sys.stdlib_module_names:
            return None
        return PathFinder.find_spec(name, [str(Path.cwd())], target)


def set_import_path(safe: bool) -> None:
    """Let modules of the working folder be imported after every library.

    Args:
        safe: Leave the working folder out instead; entries of PYTHONPATH stay.

    """
    if _is_command():
        os.environ["PYTHONSAFEPATH"] = "1"  # processes that are started from here begin without the working folder
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, WorkingFolder)]
    if safe:
        os.environ.pop(IN_WORKERS, None)
        stated = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:] = [entry for entry in sys.path if entry in stated or entry not in ("", str(Path.cwd()))]
    else:
        os.environ[IN_WORKERS] = "1"
        sys.meta_path.append(WorkingFolder())


def _is_command() -> bool:
    """Whether this process is the console script; a user's own script needs its folder in further processes, too."""
    main = sys.modules["__main__"]
    return main.__spec__ is None and Path(getattr(main, "__file__", None) or "").stem in PROGRAMS


if IN_WORKERS in os.environ:  # a spawned process imports the command's module, but does not run `main`
    sys.meta_path.append(WorkingFolder())

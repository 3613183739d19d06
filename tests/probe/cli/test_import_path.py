"""The import path: no file of the working folder takes the place of a library, and a user's own modules are found."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = "import sys\nfrom probe.cli.main import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
"""What pip writes for a console script."""
SPAWN = """
import multiprocessing, sys
from probe.cli.import_path import set_import_path
def work():
    import socket, six, yaml, uuid, tqdm
    if sys.argv[1] == "open":
        import own_task
        assert own_task.VALUE == 7
if __name__ == "__main__":
    set_import_path(safe=sys.argv[1] == "safe")
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""
"""A console script whose work is done by a spawned process, as in data loaders and ddp_spawn."""
OPTIONAL = "try:\n    import {0}\nexcept ImportError:\n    print('no {0}')\n"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file for every module of Python and of the installed libraries; each leaves a marker."""
    folder = tmp_path_factory.mktemp("hostile")
    libraries = {name for name in packages_distributions() if name.isidentifier() and PathFinder.find_spec(name)}
    names = (libraries | sys.stdlib_module_names) - {"probe", "extract", "datamodules"}
    assert {"six", "yaml", "uuid", "tqdm", "lazy_loader", "runpy", "msvcrt", "mpl_toolkits"} <= names
    for name in names:
        (folder / f"{name}.py").write_text(
            f"open('{folder}/imported.txt', 'a').write('{name} ')\nraise SystemExit(9)\n"
        )
    (folder / "own_task.py").write_text("VALUE = 7\n")
    return folder


@pytest.fixture
def run_there(hostile: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Another interpreter in that folder, which must import nothing of it."""

    def call(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        done = subprocess.run(
            [sys.executable, *map(str, words)], cwd=hostile, env=env, capture_output=True, text=True, check=False
        )
        marker = hostile / "imported.txt"
        imported = marker.read_text() if marker.exists() else ""
        marker.unlink(missing_ok=True)
        assert imported == ""
        return done

    return call


def script(folder: Path, text: str, name: str = "lightning") -> Path:
    file = folder / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("words", [["-m", "probe"], ["-mprobe"], ["-m", "probe.cli.main"]])
def test_python_m_imports_no_file_of_the_working_folder(words: list[str], run_there: Call) -> None:
    done = run_there(*words, "configs")
    assert done.returncode == 0
    assert "correlation.yaml" in done.stdout


def test_the_console_script_imports_no_file_of_the_working_folder(run_there: Call, tmp_path: Path) -> None:
    done = run_there(script(tmp_path, SCRIPT), "report", "--help")
    assert "--output" in done.stdout


@pytest.mark.slow
def test_a_stage_imports_no_file_of_the_working_folder(run_there: Call, tmp_path: Path) -> None:
    done = run_there(script(tmp_path, SCRIPT), "fit", "-c", "probe.yaml", "--store", tmp_path / "none")
    assert "error: no score store at" in done.stderr


def test_a_process_of_ddp_imports_no_file_of_the_working_folder(run_there: Call) -> None:
    """Lightning starts it as `python -m probe.__main__` with this process's environment."""
    assert run_there("-m", "probe.__main__", "configs", PYTHONSAFEPATH="1").returncode == 0


@pytest.mark.parametrize("mode", ["open", "safe"])
def test_a_spawned_process_finds_own_modules_and_no_hostile_ones(mode: str, run_there: Call, tmp_path: Path) -> None:
    assert run_there(script(tmp_path, SPAWN), mode).stderr == ""


@pytest.mark.parametrize(("safe", "said"), [(False, ""), (True, "no own_task\n")])
def test_own_modules_are_found_unless_the_run_is_safe(safe: bool, said: str, run_there: Call, tmp_path: Path) -> None:
    body = f"from probe.cli.import_path import set_import_path\nset_import_path({safe})\n{OPTIONAL.format('own_task')}"
    done = run_there(script(tmp_path, body + OPTIONAL.format("msvcrt")))
    assert done.stdout == f"{said}no msvcrt\n"


def test_stated_entries_of_the_import_path_stay(run_there: Call, hostile: Path, tmp_path: Path) -> None:
    (tmp_path / "stated.py").write_text("VALUE = 1\n")
    body = "from probe.cli.import_path import set_import_path\nset_import_path(safe=True)\nimport stated\n"
    stated = os.pathsep.join([str(ROOT), str(tmp_path)])
    assert run_there(script(tmp_path, body), PYTHONPATH=stated).stderr == ""


def test_a_clone_that_is_not_installed_runs_from_its_folder(tmp_path: Path) -> None:
    for name in ("probe", "extract", "datamodules"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "six.py").write_text("raise SystemExit(9)\n")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-m", "probe", "configs"]
    assert subprocess.run(words, cwd=tmp_path, env=clean, capture_output=True, check=False).returncode == 0

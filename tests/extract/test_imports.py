"""Light parts of the package import without the heavy libraries, and public names hide no submodule."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import datamodules
import extract
from tests.conftest import ROOT

HEAVY = ("lightning", "transformers", "datasets")
TASKS = "from extract.tasks import MultiHopQA, NIAH, Sample, Task, exact_match, load_haystack"
SOURCES = "from extract.tasks.sources import HotpotQA, JsonLines, SyntheticQA; SyntheticQA(3).load()"
STORE = "from extract.store import ScoreStore; ScoreStore('tests/extract/store/format_2').steps(0)"


@pytest.mark.parametrize(
    "code",
    [
        "import extract.errors",
        "import extract.tasks",
        "import extract.store",
        "import extract.prompts",
        "from extract import LLMIdentity, UserError, token_texts",
        TASKS,
        SOURCES,
        STORE,
    ],
)
def test_light_parts_load_nothing_heavy(code: str) -> None:
    """In a fresh interpreter, down to the classes and a read store."""
    report = f"{code}\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


PACKAGES = [
    extract.__name__,
    datamodules.__name__,
    *(found.name for found in pkgutil.walk_packages(extract.__path__, "extract.") if found.ispkg),
]


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_exist_and_equal_no_submodule(name: str) -> None:
    """A name that a submodule has too would become the module once that is imported."""
    package = importlib.import_module(name)
    folder = Path(str(package.__file__)).parent
    stub = ast.parse((folder / "__init__.pyi").read_text())
    public = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert public == set(package.__all__)
    assert all(hasattr(package, attribute) for attribute in public)
    assert not public & {found.name for found in pkgutil.iter_modules(package.__path__)}

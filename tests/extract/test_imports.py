"""Light parts of the package import without the heavy libraries."""

import subprocess
import sys

import pytest

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

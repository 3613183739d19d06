"""The guide's first example gives the output that it prints, and the notebook runs."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.project.test_docs import blocks

GUIDE = ROOT / "docs" / "guides" / "attribute.md"
NOTEBOOK = ROOT / "notebooks" / "attribution.ipynb"


@pytest.mark.slow
def test_the_first_example_gives_the_printed_output() -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(blocks(GUIDE, "python")[0], str(GUIDE), "exec"), {})
    assert said.getvalue() == blocks(GUIDE, "text")[0]


@pytest.mark.slow
def test_the_notebook_has_ten_cells_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells: list[Any] = json.loads(NOTEBOOK.read_text())["cells"]
    assert len(cells) == 10
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells)  # kept without outputs
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    names: dict[str, Any] = {"__name__": "notebook"}
    for source in code:
        exec(compile(source, str(NOTEBOOK), "exec"), names)
    assert names["found"].citations()
    assert (tmp_path / "answer.html").stat().st_size > 10_000
    assert names["citing"].answers[0].citations()

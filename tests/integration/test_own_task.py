"""A user's own task and probe as the documentation shows them, through every experiment."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import probe
from probe.cli.main import main
from tests.conftest import ROOT, Run
from tests.helpers.stages import PROBES, Stages, rag_callbacks

GUIDE = ROOT / "docs" / "guides" / "task.md"
PROBE_PAGE = ROOT / "docs" / "experiments" / "probes.md"
THINGS = [
    (f"{size} {thing}", "blue") for size in ("old", "new", "tiny") for thing in ("car", "cup", "hat", "door", "key")
]


def documented() -> str:
    """The guide's class."""
    (code,) = re.findall(r"```python\n(from extract import LLM.*?)\ntask = ", GUIDE.read_text(), flags=re.DOTALL)
    return str(code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the guide's class, whose two samples the ablation asks, and one of more samples."""
    found = tmp_path_factory.mktemp("mine")
    (found / "own_colours.py").write_text(documented() + f"\n\nclass Many(Colours):\n    things = {THINGS!r}\n")
    return found


@pytest.fixture(scope="module")
def stages(folder: Path, tiny_llm_folder: Path) -> Iterator[Stages]:
    """Every stage in that folder, on the store of the user's task, which is extracted first."""
    stages = Stages(folder, tiny_llm_folder)
    before = Path.cwd()
    os.chdir(folder)
    # Its prompts are shorter than the tokens that Eq. 2 leaves out by default.
    keys = ("--model.init_args.sink", 0, "--model.init_args.local", 4)
    task = ("--data.init_args.task.class_path", "own_colours.Many", "--store", folder / "store")
    assert main(stages.argv("predict", *task, *keys)) == 0
    yield stages
    os.chdir(before)
    for name in ("own_colours", "own_probe"):
        sys.modules.pop(name, None)


def results(name: str) -> dict[str, Any]:
    """Of the last run of an experiment."""
    last = max(Path("runs").rglob(f"{name}/store/version_*/results.json"), key=lambda path: path.stat().st_mtime)
    found: dict[str, Any] = json.loads(last.read_text())
    return found


@pytest.mark.parametrize("kind", PROBES)
def test_probes(kind: str, stages: Stages, run: Run) -> None:
    for stage in ("fit", "validate", "test"):
        assert run(*stages.argv(f"{stage} {kind}"))[0] == 0
    assert results(PROBES[kind].replace("probe", "classifier") if kind == "classifier" else PROBES[kind])["llm"]


@pytest.mark.parametrize("experiment", ["dynamism", "correlation"])
def test_experiments_on_a_store(experiment: str, stages: Stages, run: Run) -> None:
    assert run(*stages.argv(f"test {experiment}", "--data.init_args.target", "reasoning"))[0] == 0
    assert results(experiment)["experiment"] == experiment


def test_ablation_without_the_fields_of_heatmaps(stages: Stages, run: Run) -> None:
    """Heatmaps are refused before the LLM works; without them everything else runs, by the task's only metric."""
    others = ("--data.init_args.task.class_path", "own_colours.Colours")
    heads = ("--model.init_args.dynamic_heads", '{"target": "reasoning", "threshold": 0.2, "sink": 0, "local": 4}')
    code, said = run(*stages.argv("test ablation", *others, *heads))
    assert code == 2
    assert "model.heatmap: the task's samples have no length and no depth in Sample.fields" in said
    assert not Path("runs", "ablation", "niah", "store", "trials").exists()
    assert run(*stages.argv("test ablation", *others, *heads, "--model.init_args.heatmap", "null"))[0] == 0
    assert set(results("niah")["metrics"]["all"]["dynamic"]) >= {"accuracy", "ablated"}


def test_masked_rag_on_a_file_of_questions(stages: Stages, run: Run) -> None:
    """The guide's other way: a file; the probe is that of the user's task."""
    if not stages.checkpoint("regressor").exists():
        assert run(*stages.argv("fit regressor"))[0] == 0
    (question,) = re.findall(r"```json\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    Path("mine.jsonl").write_text(question)
    callbacks = rag_callbacks()
    settings = callbacks[-1]["init_args"]
    settings["task"]["init_args"]["source"] = {
        "class_path": "extract.JsonLines",
        "init_args": {"files": ["mine.jsonl"]},
    }
    assert run(*stages.argv("test rag", "--trainer.callbacks", json.dumps(callbacks)))[0] == 0
    assert results("rag")["experiment"] == "rag"


def test_report(stages: Stages, run: Run) -> None:
    assert run("report", "runs", "--output", "page.html")[0] == 0
    assert "own_colours.Colours" in Path("page.html").read_text()


FAULTS = {
    "sample": ("return 3", "`sample` must return an extract.Sample, not int"),
    "grade": ("return {}", "`grade` must return metrics by name"),
    "describe": ("return {1: {2}}", "`describe` must return plain values"),
    "order": ("return [0, 0]", "`order` must list 15 different sample numbers"),
    "__len__": ("return 0", "`len` is 0"),
}


@pytest.mark.parametrize("method", FAULTS)
def test_a_task_that_breaks_the_interface(method: str, stages: Stages, run: Run) -> None:
    """One line with the method, before any weights load."""
    body, words = FAULTS[method]
    name = f"own_{method.strip('_')}"
    text = f"from own_colours import Many\n\n\nclass Odd(Many):\n    def {method}(self, *_):\n        {body}\n"
    Path(f"{name}.py").write_text(text)
    code, said = run(*stages.argv("predict", "--data.init_args.task.class_path", f"{name}.Odd"))
    assert code == 2
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert words in line and "task Odd" in line
    assert not Path("new").exists()


def test_own_probe(stages: Stages, run: Run) -> None:
    """The probe of docs/experiments/probes.md in every stage, and loaded."""
    (code,) = re.findall(r"```python\n(from torch import Tensor.*?)```", PROBE_PAGE.read_text(), flags=re.DOTALL)
    Path("own_probe.py").write_text(code)
    name = ("--model.class_path", "own_probe.CrossEntropyProbe")
    where = ("--trainer.default_root_dir", "own")
    checkpoint = Path("ckpts", "store", "classifier", "best.ckpt")
    for stage in ("fit", "validate", "test"):
        assert run(*stages.argv(f"{stage} classifier", *name, *where))[0] == 0
    assert type(probe.load(checkpoint)).__name__ == "CrossEntropyProbe"

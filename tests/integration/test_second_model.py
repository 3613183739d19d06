"""A second model as the guide shows it, from its files to the report, beside the first one's files."""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Run

GUIDE = ROOT / "docs" / "guides" / "model.md"
QA = (
    *("--data.init_args.task.init_args.source.init_args.count", "12", "--data.init_args.batch_size", "6"),
    *("--data.init_args.task.init_args.budget", "4", "--data.init_args.task.init_args.texts.examples", "[]"),
)
PROBE = ("--model.init_args.hidden", "[8]", "--model.init_args.resamples", "5", "--trainer.accelerator", "cpu")
FIT = (*PROBE, "--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1")
RAG = {
    "task.init_args.source.init_args": {"count": 2, "seed": 1, "decoys": 0},
    "task.init_args": {"budget": 6, "force": 2, "texts": {"examples": []}},
    "decoding": {"draft_length": 3},
    "bootstrap": {"resamples": 20},
}
SIZES = {
    "extract/niah": (
        *("-c", str(ROOT / "tests" / "configs" / "tiny_niah.yaml")),
        *("--data.init_args.task.init_args.runs", "20"),
    ),
    "extract/hotpotqa": QA,
    **dict.fromkeys(("fit probe", "fit regressor"), FIT),
    "test probe": PROBE,
    "dynamism": ("--model.init_args.static_top", "3", "--model.init_args.static_sizes", "[2]"),
    "correlation": (
        *("--model.init_args.offsets", "1", "--data.init_args.permutations", "1", "--data.init_args.groups", "0"),
        *("--data.init_args.target", "reasoning"),  # a random model's heads copy nothing
    ),
    "ablation/niah": ("-c", str(ROOT / "tests" / "configs" / "tiny_ablation.yaml")),
    "rag": [word for key, value in RAG.items() for word in (f"--rag.init_args.{key}", json.dumps(value))],
}
"""What makes each command of the guide small enough for a test; nothing else is added to it."""


def section() -> tuple[str, list[list[str]]]:
    """The guide's config and its commands, without the program's name."""
    (text,) = re.findall(r"## A second model.*?(?=\n## )", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (config,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (block,) = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    return config, [shlex.split(line)[1:] for line in block.strip().splitlines()]


def sizes(command: list[str]) -> list[str]:
    """What is added to a command."""
    if "-c" not in command:
        return []
    name = command[command.index("-c") + 1].removeprefix("configs/").removesuffix(".yaml")
    return list(SIZES.get(name) or SIZES[f"{command[0]} {name}"])


def contents(folder: Path) -> dict[Path, str]:
    """Hash of every file below a folder."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path: Path, tiny_llm_folder: Path) -> Iterator[Path]:
    """A working folder with the first model's files and the guide's config of the second one."""
    for name in (
        "stores/niah/manifest.json",
        "ckpts/niah/classifier/best.ckpt",
        "runs/rag/hotpotqa/trials/000000.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("the first model's", encoding="utf-8")
    config, _ = section()
    assert len(config.splitlines()) == 6
    named = config.replace("~/models/mine", str(tiny_llm_folder)).replace("bfloat16", "float32")
    (tmp_path / "mine.yaml").write_text(named, encoding="utf-8")
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def test_every_command_of_the_guide_runs_and_leaves_the_first_models_files(place: Path, run: Run) -> None:
    first = contents(place)
    _, commands = section()
    assert len(commands) == 10
    for command in commands:
        code, said = run(*command, *sizes(command))
        assert code == 0, f"{command}: {said}"
    assert {path: found for path, found in contents(place).items() if path in first} == first
    made = {path.relative_to(place).as_posix() for path in contents(place)}
    assert {"ckpts/mine/classifier/best.ckpt", "ckpts/mine-qa/regressor/best.ckpt", "report.html"} <= made
    for experiment in ("classifier", "dynamism", "correlation", "ablation/niah", "rag"):
        store = "mine-qa" if experiment == "rag" else "mine"
        assert any(re.fullmatch(rf"runs/{experiment}/{store}/version_\d/results\.json", name) for name in made)

"""Commands with one mistake each, run in this process, and the parts that they need."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from extract.store import write_manifest
from extract.utils import digest
from probe.cli.main import main
from tests.helpers.stores import make_store

TINY = """
model: {init_args: {hidden: [8], resamples: 5}}
data: {init_args: {batch_size: 32}}
trainer: {accelerator: cpu, max_epochs: 1, log_every_n_steps: 1, enable_model_summary: false}
"""
CALLBACKS = (
    "[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, "
    "init_args: {dirpath: %s, filename: best, enable_version_counter: false}}]"
)
FIT = ("fit", "-c", "probe.yaml", "-c", "tiny.yaml", "--store", "s")
TEST = ("test", "-c", "probe.yaml", "-c", "tiny.yaml", "--store", "s")
NIAH = ("predict", "-c", "extract/niah.yaml", "--store", "out", "--llm.init_args.name", "nobody/nothing")
QA = ("predict", "-c", "extract/hotpotqa.yaml", "--store", "out", "--llm.init_args.name", "nobody/nothing")
DYNAMISM = ("test", "-c", "dynamism.yaml", "--store", "s", "--trainer.accelerator", "cpu")
CORRELATION = ("test", "-c", "correlation.yaml", "--store", "s", "--trainer.accelerator", "cpu")
ABLATION = ("test", "-c", "ablation/niah.yaml", "--store", "s", "--llm.init_args.name", "nobody/nothing")
RAG = ("test", "-c", "rag.yaml", "--store", "s", "--llm.init_args.name", "nobody/nothing")
OFFSETS = ("fit", "-c", "offset_probes.yaml", "--store", "s", "--trainer.accelerator", "cpu")
REGRESSOR = ("fit", "-c", "regressor.yaml", "--store", "s", "--trainer.accelerator", "cpu")


def workshop(folder: Path) -> Path:
    """A folder with a small complete store, a config that makes probes small, and a trained checkpoint."""
    make_store(folder / "s")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        where = ("--trainer.logger", "false", "--trainer.default_root_dir", "logs")
        assert main([*FIT, *where, "--trainer.callbacks", CALLBACKS % "ckpts"]) == 0
    return folder


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below a folder, with size and time of files."""
    states = {path: path.lstat() for path in folder.rglob("*")}
    return {
        str(path.relative_to(folder)): (0, 0) if path.is_dir() else (state.st_size, state.st_mtime_ns)
        for path, state in states.items()
    }


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """The one line of a command that must be refused with nothing written."""
    before = listing(folder)
    capsys.readouterr()
    code = main([str(word) for word in command])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith("error: ") and len(lines[0]) < 1000
    assert listing(folder) == before
    return lines[0]


def resign(store: Path, change: Callable[[dict[str, object]], None]) -> Path:
    """Change a store's manifest and hash it again."""
    manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    del manifest["sha256"]
    change(manifest)
    write_manifest(store, manifest)
    assert json.loads((store / "manifest.json").read_text(encoding="utf-8"))["sha256"] == digest(manifest)
    return store

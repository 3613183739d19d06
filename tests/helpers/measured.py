"""Experiments of the tiny LLM, as their shipped config runs them with a tiny one over it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.conftest import Run

Measure = Callable[..., Any]


def measured(experiment: str, run: "Run", llm: Path, folder: Path) -> Measure:
    """What calls `lightning test` with further arguments: the results, or what a refused run printed."""

    def call(*args: object) -> Any:
        code, said = run(
            *("test", "-c", f"configs/{experiment}.yaml", "-c", f"tests/configs/tiny_{experiment}.yaml"),
            *("--llm.init_args.name", llm, "--trainer.accelerator", "cpu", "--trainer.logger", "false"),
            *("--trainer.default_root_dir", folder / "runs", "--trainer.enable_progress_bar", "false"),
            *("--model.init_args.trials", folder / "trials", "--artifacts.init_args.folder", folder / "out", *args),
        )
        return said if code else json.loads((folder / "out" / "results.json").read_text())

    return call

"""Every stage as its shipped config runs it, made tiny: an LLM of three layers, a toy store, probes of one layer."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract.llm import LLM
from probe.cli.main import main
from tests.conftest import ROOT
from tests.helpers.stores import make_store

PROBES = {"classifier": "probe", "regressor": "regressor", "offsets": "offset_probes"}
FOLDERS = {**PROBES, "classifier": "classifier"}
CONFIGS = {"predict": "extract/niah", "ablation": "ablation/niah", "rag": "rag", **PROBES}
STAGES = (
    "predict",
    *(f"{name} {kind}" for name in ("fit", "validate", "test") for kind in PROBES),
    *(f"test {experiment}" for experiment in ("dynamism", "correlation", "ablation", "rag")),
)
TINY = {
    "predict": ("tiny_niah",),
    "ablation": ("tiny_ablation",),
    "rag": (),
    "correlation": (),
    "dynamism": (),
    **dict.fromkeys(PROBES, ("tiny_probe",)),
}


@dataclass(frozen=True)
class Stages:
    """A toy store of the LLM's heads, and a trained probe of every kind.

    Args:
        folder: Where they are.
        llm: Folder of the LLM.

    """

    folder: Path
    llm: Path

    def prepare(self) -> "Stages":
        """Write the store and train the probes."""
        make_store(self.folder / "store", samples=30, identity=LLM(str(self.llm)).identity)
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            for kind in PROBES:
                assert main(self.argv(f"fit {kind}")) == 0
        finally:
            os.chdir(before)
        return self

    def checkpoint(self, kind: str) -> Path:
        """The best checkpoint of a kind of probe."""
        return self.folder / "ckpts" / "store" / FOLDERS[kind] / "best.ckpt"

    def argv(self, stage: str, *more: object) -> list[str]:
        """The command of a stage that writes into the working folder; `more` comes last."""
        name, _, kind = stage.partition(" ")
        kind = kind or name
        overlays = [arg for tiny in TINY[kind] for arg in ("-c", ROOT / "tests" / "configs" / f"{tiny}.yaml")]
        args: list[Any] = [name, "-c", f"{CONFIGS.get(kind, kind)}.yaml", *overlays, "--trainer.accelerator", "cpu"]
        args += [
            "--trainer.enable_progress_bar",
            "true",
            "--store",
            "new" if kind == "predict" else self.folder / "store",
        ]
        if kind in ("predict", "ablation", "rag"):
            args += ["--llm.init_args.name", self.llm]
        if kind in PROBES:
            args += ["--model.init_args.resamples", 5]
            args += ["--trainer.max_epochs", 2] if name == "fit" else ["--ckpt_path", self.checkpoint(kind)]
        if kind == "predict":
            args += ["--data.init_args.task.init_args.runs", 3]
        if kind == "offsets":
            args += ["--data.init_args.offsets", 2]
        if kind == "dynamism":
            args += ["--model.init_args.static_top", 3, "--model.init_args.static_sizes", "[2]"]
        if kind == "correlation":
            args += ["--model.init_args.offsets", 2, "--data.init_args.permutations", 1, "--data.init_args.groups", 0]
        if kind == "ablation":
            args += ["--model.init_args.conditions", '["probe.AblateDynamic"]', "--data.init_args.batch_size", 1]
            args += ["--data.init_args.task.init_args.runs", 2]
        if kind == "rag":
            args += ["--ckpt_path", self.checkpoint("regressor"), "--trainer.callbacks", json.dumps(rag_callbacks())]
        return [str(arg) for arg in (*args, *more)]


def rag_callbacks() -> list[dict[str, Any]]:
    """Those of the shipped config, for three questions of eight tokens; a random model never ends its answer."""
    source = {"class_path": "extract.SyntheticQA", "init_args": {"count": 3, "seed": 1, "decoys": 0}}
    task = {"source": source, "style": "chain", "budget": 8, "texts": {"examples": []}}
    evaluation = {
        "task": {"class_path": "extract.MultiHopQA", "init_args": task},
        "strategies": [{"class_path": f"probe.rag.{name}"} for name in ("DynamicHeadsStrategy", "WithoutRAG")],
        "trigger": {"class_path": "probe.rag.RIND", "init_args": {"threshold": 0.5}},
        "windows": {"heads": 2, "k": 3, "gap": 2, "width": 6},
        "decoding": {"draft_length": 4, "batch_size": 2},
        "trials": "runs/rag/trials",
        "bootstrap": {"resamples": 20},
    }
    return [
        {"class_path": "lightning.pytorch.callbacks.TQDMProgressBar"},
        {"class_path": "probe.rag.RagEvaluation", "init_args": evaluation},
    ]

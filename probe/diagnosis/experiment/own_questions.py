"""Diagnosis of a file of questions, as configs/diagnosis.yaml does it, without a config."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from datamodules import Prompts
from extract.errors import UserError
from extract.llm import LLM
from extract.tasks import MultiHopQA
from extract.tasks.sources import JsonLines
from extract.utils import read_hashed, user_path
from probe.diagnosis.causes import CHANCE, Cause, Thresholds
from probe.diagnosis.experiment.diagnosis import Diagnosis
from probe.diagnosis.settings import TrainingPrompts
from probe.results import Artifacts


@dataclass(frozen=True)
class Sorting:
    """How failures are sorted by cause.

    Attributes:
        thresholds: Borders between causes; None: from the solved answers of training prompts.
        training: Share of the questions that are training prompts.
        supported: Causes that the claims of a former run support.

    """

    thresholds: Thresholds | None
    training: float = 0.0
    supported: tuple[Cause, ...] = ()

    @classmethod
    def of(cls, name: str) -> "Sorting":
        """The sorting of a name: `chance`, `own`, or the results.json of a former diagnosis.

        Raises:
            UserError: the file is none, or has no thresholds.

        """
        if name == "chance":
            return cls(CHANCE)
        if name == "own":
            return cls(None, TrainingPrompts.share)
        if not user_path(name).is_file():
            raise UserError(f"--thresholds {name}: `chance`, `own`, or the results.json of a former diagnosis")
        record = diagnosis_record(user_path(name))
        if record["thresholds"] is None:
            raise UserError(f"--thresholds {name}: that run had too few solved answers for thresholds")
        return cls(Thresholds(**record["thresholds"]), supported=tuple(record.get("supported", ())))


def diagnosis_record(file: Path) -> dict[str, Any]:
    """Results of a diagnosis.

    Raises:
        UserError: the file is damaged, or of another experiment.

    """
    record, _ = read_hashed(file, "run the diagnosis again")
    if record.get("experiment") != "diagnosis":
        raise UserError(f"{file} holds results of another experiment; give those of a run of configs/diagnosis.yaml")
    return record


def holds_questions(file: Path) -> bool:
    """Whether a file is one of questions: any but an existing .json file that is an object, as results are."""
    if not file.is_file():
        return file.suffix == ".jsonl"
    with file.open("rb") as opened:
        start = opened.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return file.suffix != ".json" or not start.startswith(b"{")


def diagnose_questions(
    file: str,
    folder: Path,
    llm: LLM,
    sorting: Sorting,
    style: Literal["chain", "short"],
    budget: int | None,
    batch_size: int,
    device: str,
) -> Path:
    """Answer the questions of a file, diagnose the failed answers, and write results; the same call goes on.

    Args:
        file: Questions as `extract.tasks.sources.JsonLines` reads them.
        folder: Gets the results, and the trials.
        llm: The frozen model.
        sorting: How failures are sorted.
        style: Of the answers.
        budget: Most tokens of an answer; None: the style's.
        batch_size: Questions answered together.
        device: auto, cpu, cuda or cuda:1.

    Returns:
        The results.json.

    """
    from lightning import Trainer

    module = Diagnosis(
        llm,
        training=TrainingPrompts(share=sorting.training),
        thresholds=sorting.thresholds,
        supported=sorting.supported,
        trials=str(folder / "trials"),
    )
    task = MultiHopQA(JsonLines(file), style=style, budget=budget, overlong="cut")
    trainer = Trainer(
        **_placement(device),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        callbacks=[Artifacts(str(folder))],
    )
    trainer.test(module, Prompts(task, llm, batch_size), verbose=False)
    return folder / "results.json"


def _placement(name: str) -> dict[str, Any]:
    """Lightning's names of a device."""
    if name == "auto":
        return {"accelerator": "auto", "devices": 1}
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: auto, cpu, cuda or cuda:1") from error
    if device.type == "cpu":
        return {"accelerator": "cpu", "devices": 1}
    return {"accelerator": "gpu", "devices": 1 if device.index is None else [device.index]}

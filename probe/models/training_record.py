"""What a trained module remembers of its data, and what it may therefore not be evaluated on."""

import importlib
from pathlib import Path
from typing import Any

from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from datamodules import ScoreRows
from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.utils import command
from probe.models.model_card import probe_card, write_card


class TrainedOnRows(LightningModule):
    """A LightningModule that learns from score rows and carries their origin in its checkpoints."""

    target: str
    """The score it predicts: `copy_paste` or `reasoning`."""
    head_means: Tensor
    """Buffer of the training rows' mean score of each head: the static baseline."""

    def __init__(self) -> None:
        super().__init__()
        self.origin: dict[str, Any] = {}
        """What it was trained on (`llm`, `store`, `target`, `split`): set by `fit`, kept in checkpoints."""

    @property
    def llm(self) -> LLMIdentity:
        """The LLM it was trained for."""
        return LLMIdentity(**self.origin["llm"])

    def check_llm(self, identity: LLMIdentity) -> None:
        """Refuse hidden states of another LLM.

        Raises:
            UserError: the weights differ; the message names both.

        """
        if self.origin and not self.llm.same_model(identity):
            raise UserError(
                f"this probe was trained on {self.llm}; it says nothing about {identity}: train one for that model"
            )

    def setup(self, stage: str) -> None:
        """Check that the data holds what this probe predicts."""
        del stage
        rows = self._rows()
        if rows.target != self.target:
            raise UserError(f"data.target is {rows.target}, but {type(self).__name__} predicts {self.target}")

    def _rows(self) -> ScoreRows:
        rows = getattr(self.trainer, "datamodule", None)
        if not isinstance(rows, ScoreRows):
            raise UserError("a probe learns from datamodules.ScoreRows: set data.class_path to it")
        return rows

    def current_origin(self) -> dict[str, Any]:
        """What the attached data is."""
        rows = self._rows()
        return {
            "llm": rows.identity.as_dict(),
            "store": rows.store.fingerprint,
            "target": rows.target,
            "split": rows.split_record(),
            "seen": sorted(rows.split_ids("train") | rows.split_ids("val")),
        }

    def check_origin(self) -> None:
        """Refuse to be evaluated on another LLM's rows, or on rows of the trained store that were training rows.

        Raises:
            UserError: naming both sides.

        """
        rows = self._rows()
        self.check_llm(rows.identity)
        if rows.test_path is None and self.origin["store"] == rows.store.fingerprint:
            if self.origin["split"] != (here := rows.split_record()):
                raise UserError(
                    f"data.split {_split_text(here)} is not the one this probe was trained with "
                    f"({_split_text(self.origin['split'])}): test rows would be training rows"
                )
            return
        seen = set(self.origin["seen"]) & rows.split_ids("test")
        if seen:
            raise UserError(
                f"{len(seen)} of the test samples of {rows.test_path or rows.store_path} were training or validation "
                f"samples of this probe ({min(seen)}, …): extract others, by another seed or other questions"
            )

    def on_fit_start(self) -> None:
        """Remember the data, and each head's training mean: the static baseline."""
        if self.origin:
            self.check_origin()
        self.origin = self.current_origin()
        self.head_means.copy_(self._rows().head_means())

    def on_test_start(self) -> None:
        """Only a trained probe is evaluated, and only on rows that it has not seen."""
        if not self.origin:
            raise UserError("this probe is untrained: add --ckpt_path with a checkpoint of `lightning fit`")
        self.check_origin()

    def on_validation_start(self) -> None:
        """As for a test, when validation is the stage; within `fit` the rows are those just checked."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self.on_test_start()

    def on_fit_end(self) -> None:
        """A card beside the checkpoints."""
        for callback in self.trainer.checkpoint_callbacks:
            if file := getattr(callback, "best_model_path", ""):
                self._write_card(Path(file))

    def on_test_end(self) -> None:
        """The card again, with the metrics."""
        results = getattr(self, "results", None)
        if results and self.trainer.ckpt_path is not None:
            self._write_card(Path(self.trainer.ckpt_path), results)

    def _write_card(self, checkpoint: Path, results: dict[str, Any] | None = None) -> None:
        if self.trainer.is_global_zero and checkpoint.is_file():
            text = probe_card(type(self).__name__, self.origin, command(), results, checkpoint.name)
            write_card(checkpoint.parent, text)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Class and origin in plain values, so that loading executes nothing."""
        name = public_name(type(self))
        checkpoint["probe"] = {"class": name, "origin": self.origin}
        if "_class_path" in checkpoint.get("hyper_parameters", {}):
            checkpoint["hyper_parameters"]["_class_path"] = name

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the origin back; weights for another LLM may not even fit, so it is refused before they are loaded."""
        self.origin = checkpoint.get("probe", {}).get("origin", {})
        if self._trainer is not None:
            self.check_llm(self._rows().identity)


def public_name(kind: type) -> str:
    """The dotted name of a class in configs and checkpoints, which survives a move between modules.

    A class that its top-level package exports goes by that name; any other class by its module.

    >>> from probe import ProbeClassifier
    >>> public_name(ProbeClassifier)
    'probe.ProbeClassifier'

    """
    package = kind.__module__.partition(".")[0]
    if getattr(importlib.import_module(package), kind.__name__, None) is kind:
        return f"{package}.{kind.__name__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def _split_text(record: dict[str, Any]) -> str:
    names = ("seed", "limit", "offset")
    return f"by {record['by']} {record['fractions']}, " + ", ".join(f"{name} {record[name]}" for name in names)

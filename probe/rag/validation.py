"""Masked dynamic RAG while a probe trains: EM, F1 and recall over epochs, in the logger."""

from collections.abc import Sequence

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from extract.llm import LLM
from extract.tasks import MultiHopQA
from extract.utils import PositiveInt, check_value
from probe.rag.evaluation import RagCallback
from probe.rag.results import Trace
from probe.rag.results.reporting import seen_note
from probe.rag.settings import Decoding
from probe.rag.strategies import Strategy, Windows
from probe.rag.triggers import Trigger

LOGGED = ("em", "f1", "em_last", "f1_last", "contains", "em_forced", "f1_forced", "first_recall")
"""Metrics that are logged, as `rag/METRIC/STRATEGY`."""


class RagValidation(RagCallback):
    """In `fit`, log EM, F1, other grades and first recall of masked RAG with the probe as it is, every few epochs.

    Strategies that do not use the probe are run once.

    Args:
        task, strategies, llm, trigger, windows, decoding, allow_seen: See `RagCallback`.
        every_n_epochs: Epochs from one evaluation to the next.

    """

    def __init__(
        self,
        task: MultiHopQA,
        strategies: list[Strategy],
        llm: LLM | None = None,
        trigger: Trigger | None = None,
        windows: Windows = Windows(),  # noqa: B008 (frozen)
        decoding: Decoding = Decoding(),  # noqa: B008 (frozen)
        allow_seen: bool = False,
        every_n_epochs: PositiveInt = 1,
    ) -> None:
        super().__init__(task, strategies, llm, trigger, windows, decoding, allow_seen)
        check_value(every_n_epochs, PositiveInt, "RagValidation.every_n_epochs")
        self.every_n_epochs = every_n_epochs
        self._constant: list[Trace] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a wrong probe before it trains."""
        del trainer
        self.set_probe(pl_module)
        if note := seen_note({"seen_questions": self.runner.seen_questions}, len(self.task)):
            rank_zero_info(f"RagValidation: {note}")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate and log."""
        trains = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not trains or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        self.set_probe(pl_module)
        numbers = self.task.order()[trainer.global_rank :: trainer.world_size]
        if self._constant is None:
            self._constant = self.runner.run_all(numbers, [one for one in self.strategies if not one.uses_probe])
        traces = self.runner.run_all(numbers, [one for one in self.strategies if one.uses_probe])
        for strategy, metrics in mean_metrics(_gathered(trainer, [*traces, *self._constant])).items():
            for name, value in metrics.items():
                pl_module.log(f"rag/{name}/{strategy}", value, sync_dist=True)


def _gathered(trainer: Trainer, traces: list[Trace]) -> list[Trace]:
    """The traces of all processes, on each."""
    ranks = range(trainer.world_size)
    return [one for rank in ranks for one in trainer.strategy.broadcast(traces, src=rank)]


def mean_metrics(traces: Sequence[Trace]) -> dict[str, dict[str, float]]:
    """Mean over questions of each logged metric, by strategy; a metric that no question has is left out.

    >>> metrics = [{"em": 1.0, "f1": 1.0, "first_recall": None}, {"em": 0.0, "f1": 0.5, "first_recall": None}]
    >>> mean_metrics([{"strategy": "static", "metrics": one} for one in metrics])
    {'static': {'em': 0.5, 'f1': 0.75}}

    """
    found: dict[str, dict[str, float]] = {}
    for strategy in dict.fromkeys(one["strategy"] for one in traces):
        metrics = [one["metrics"] for one in traces if one["strategy"] == strategy]
        values = {name: np.array([one.get(name) for one in metrics], np.float64) for name in LOGGED}
        found[strategy] = {name: float(v[np.isfinite(v)].mean()) for name, v in values.items() if np.isfinite(v).any()}
    return found

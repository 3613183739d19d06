"""Progress of an extraction: prompts, prefill and decode steps of the running batch, rows a second, time left."""

from collections.abc import Sequence
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar

from extract.tasks import Sample
from extract.utils import Progress


class PromptProgress:
    """What `predict` shows; only the host counts, so that no step waits for the device.

    Args:
        prompts: That this process has to run, those that an earlier run finished included.
        finished: That an earlier run finished.

    """

    def __init__(self, prompts: int, finished: int = 0) -> None:
        self.prompts, self.finished = prompts, finished
        self.done = self.rows = 0  # of this run
        self._line = Progress("extraction", prompts - finished, delay=0.0)
        self.begin([])

    def begin(self, samples: Sequence[Sample]) -> None:
        """A batch begins."""
        self._batch = len(samples)
        self._tokens = sum(len(sample.ids) - 1 for sample in samples)  # the last one is left to the first step
        self._budget = max((sample.budget for sample in samples), default=0)
        self._most_rows = sum(sample.budget for sample in samples)
        self._prefilled = self._steps = self._rows = 0
        self._decodes = False
        self._show()

    def prefilled(self, tokens: int) -> None:
        """Some prompt tokens were run, or taken over from a prompt with the same beginning."""
        self._decodes = False
        self._prefilled += tokens
        self._show()

    def decoded(self, rows: int) -> None:
        """A step was run, which gave this many rows."""
        self._decodes = True
        self._steps += 1
        self._rows += rows
        self.rows += rows
        self._show()

    def end(self) -> None:
        """The batch is finished."""
        self.done += self._batch
        self.begin([])

    def close(self) -> None:
        """Remove the line."""
        self._line.close()

    def share(self) -> float:
        """Prompts that are done, the running batch by its tokens and its rows, half each."""
        prefill = self._prefilled / self._tokens if self._tokens else 0.0
        rows = self._rows / self._most_rows if self._most_rows else 0.0
        return self.done + self._batch * min(1.0, (prefill + rows) / 2)

    def text(self) -> str:
        """The state in words."""
        state = f"prefill {self._prefilled:,}/{self._tokens:,} tokens"
        if self._decodes:
            # Prompts that take the places of others begin later, so that there are more steps than an answer has.
            state = f"step {self._steps}/{self._budget}" if self._steps <= self._budget else f"step {self._steps:,}"
        rate = f"{self.rows / max(self._line.seconds, 1e-3):.1f} rows/s"
        parts = [f"{self.finished + self.done}/{self.prompts} prompts", state if self._batch else "", rate]
        return ", ".join(part for part in (*parts, self._line.left(self.share())) if part)

    def _show(self) -> None:
        if self._line.due():
            self._line.show(self.share(), self.text())


def replaceable_bar(trainer: Trainer) -> ProgressBar | None:
    """The Trainer's bar, where it is one of Lightning's own, which count batches, and shows anything."""
    bar: Any = trainer.progress_bar_callback
    known = type(bar) in (TQDMProgressBar, RichProgressBar) and bar.is_enabled and trainer.is_global_zero
    return bar if known else None


def prompts_of(trainer: Trainer) -> tuple[int, int]:
    """Prompts of this process, those that an earlier run finished included, and how many those are."""
    prompts: Any = trainer.datamodule  # type: ignore[attr-defined]
    loader: Any = prompts.predict_dataloader()
    sizes = [len(samples) for _, samples in loader.dataset.batches]
    finished = len(prompts.task) - sum(sizes)
    return finished + sum(sizes[index] for index in loader.sampler if index < len(sizes)), finished

"""Prompts for the frozen model: a task's samples in fixed batches."""

from typing import Any, Protocol, runtime_checkable

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from datamodules.samplers import Share
from extract.errors import UserError
from extract.llm import LLM
from extract.tasks import PromptBatch, Task, check_task
from extract.utils import PositiveInt, WorkShare, check_precision, digest

WHOLE = "1/1"
"""Share of a machine that extracts all batches."""


@runtime_checkable
class KeepsBatches(Protocol):
    """A LightningModule or callback that keeps results by batch, and so knows which ones an earlier run finished."""

    def finished_batches(self) -> frozenset[int]:
        """Numbers of the finished batches, known once its `setup` has run."""


@runtime_checkable
class RunsPasses(Protocol):
    """A LightningModule that needs the prompts several times over, with one dataloader for each pass."""

    def finished_by_pass(self) -> list[frozenset[int]]:
        """Numbers of the finished batches of each pass, known once its `setup` has run."""


class PromptBatches(Dataset[PromptBatch]):
    """The batches that are left to run; the index after the last gives an empty batch."""

    def __init__(self, task: Task, batches: dict[int, list[int]]) -> None:
        self.task = task
        self.batches = list(batches.items())

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def __getitem__(self, index: int) -> PromptBatch:
        """A batch by its index among those that are left."""
        number, samples = self.batches[index] if index < len(self) else (-1, [])
        return PromptBatch(number, [self.task.sample(sample) for sample in samples], self.task)


class Prompts(LightningDataModule):
    """Batches of a task's prompts, fixed by the task's order and the batch size alone.

    Batches that the run's LightningModule or callbacks have finished before (see `KeepsBatches`) are skipped. A module
    may go through the prompts more than once (see `RunsPasses`).

    Args:
        task: The task.
        llm: The frozen model (linked from the top-level `llm:`); its tokenizer makes the prompts.
        batch_size: Prompts decoded together.
        share: Which batches this machine extracts, such as `2/4`: every fourth, from the second on. `lightning merge`
            joins the stores of all shares to the one that `1/1` gives.

    """

    def __init__(self, task: Task, llm: LLM | None = None, batch_size: PositiveInt = 16, share: str = WHOLE) -> None:
        super().__init__()
        self.task, self.llm, self.batch_size, self.share = task, llm, batch_size, share

    def setup(self, stage: str) -> None:
        """Prepare the task, so that bad settings are found before the model runs."""
        if stage not in ("predict", "test"):
            raise UserError(f"datamodules.Prompts serves `lightning predict` and `lightning test`, not `{stage}`")
        if self.llm is None:
            raise UserError("no `llm:` in the config; add one of configs/llm/*.yaml with a further -c")
        if self.trainer is not None:
            check_precision(self.trainer)
            if (precision := self.trainer.precision) != "32-true":
                rank_zero_info(f"trainer.precision {precision} changes nothing here: the LLM runs in {self.llm.dtype}")
        if self.batch_size < 1:
            raise UserError(f"data.batch_size: must be at least 1, not {self.batch_size}")
        if WorkShare.parse(self.share, "data.share").of > 1 and stage != "predict":
            raise UserError(f"data.share {self.share}: only `lightning predict` divides prompts among machines")
        self.task.prepare(self.llm)
        check_task(self.task)
        if not self._numbers():
            raise UserError(f"data.share {self.share}: the task has only {self._all_batches} batches")

    @property
    def batches(self) -> int:
        """Number of batches of this machine's share, finished ones included."""
        return len(self._numbers())

    @property
    def _all_batches(self) -> int:
        return -(-len(self.task) // self.batch_size)

    def _numbers(self) -> list[int]:
        """Numbers of the share's batches."""
        share = WorkShare.parse(self.share, "data.share")
        return [number for number in range(self._all_batches) if share.holds(number)]

    def describe(self) -> dict[str, Any]:
        """Settings that determine the samples and their batches, for the store's manifest."""
        assert self.llm is not None
        first = self.task.sample(self.task.order()[0])
        # A hash of the first prompt's tokens covers what the settings do not name: chat template, tokenizer, a date.
        prompts = {"chat": self.llm.chat, "first_prompt_sha256": digest(first.ids)}
        share = WorkShare.parse(self.share, "data.share")
        return {
            **{"task": self.task.describe(), "prompts": prompts, "batch_size": self.batch_size},
            **({"share": str(share)} if share.of > 1 else {}),
        }

    def predict_dataloader(self) -> DataLoader[PromptBatch]:
        """The batches not yet finished, divided over the processes."""
        return self._unfinished(self._finished())

    def _unfinished(self, finished: frozenset[int]) -> DataLoader[PromptBatch]:
        assert self.trainer is not None
        order, size = self.task.order(), self.batch_size
        left = {n: order[n * size : (n + 1) * size] for n in self._numbers() if n not in finished}
        share = Share(len(left), self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(PromptBatches(self.task, left), batch_size=None, sampler=share)

    def _finished(self) -> frozenset[int]:
        """Numbers of the batches that every keeper of results has finished."""
        assert self.trainer is not None
        parts: list[Any] = [self.trainer.lightning_module, *self.trainer.callbacks]  # type: ignore[attr-defined]
        finished = [part.finished_batches() for part in parts if isinstance(part, KeepsBatches)]
        return frozenset.intersection(*finished) if finished else frozenset()

    def test_dataloader(self) -> DataLoader[PromptBatch] | list[DataLoader[PromptBatch]]:
        """The same batches; for a module that `RunsPasses` once for each pass, one after the other."""
        module: Any = self.trainer and self.trainer.lightning_module
        if isinstance(module, RunsPasses):
            return [self._unfinished(finished) for finished in module.finished_by_pass()]
        return self.predict_dataloader()

    def transfer_batch_to_device(self, batch: PromptBatch, device: torch.device, dataloader_idx: int) -> PromptBatch:
        """Prompts are lists: decoding pads and moves them."""
        del device, dataloader_idx
        return batch

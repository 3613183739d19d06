"""Batches of prompts: fixed numbers and samples, and those that an earlier run finished are skipped."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from datamodules import KeepsBatches, Prompts, RunsPasses
from extract.tasks import Sample, Task


class Numbers(Task):
    """Seven samples in reverse order."""

    def prepare(self, llm: Any) -> None:
        """Nothing to load."""

    def __len__(self) -> int:
        return 7

    def sample(self, index: int) -> Sample:
        return Sample(index, str(index), [index], [], 1, "", "")

    def grade(self, sample: Sample, answer: str) -> dict[str, float]:
        return {"accuracy": float(sample.gold in answer)}

    def describe(self) -> dict[str, Any]:
        return {}

    def order(self) -> list[int]:
        return list(range(7))[::-1]


class Keeper:
    """Keeps results of some batches."""

    def __init__(self, *finished: int) -> None:
        self.finished = frozenset(finished)

    def finished_batches(self) -> frozenset[int]:
        return self.finished


def batches(module: object, callbacks: Sequence[object], rank: int = 0, world: int = 1) -> dict[int, list[int]]:
    """What one process runs: samples by batch number."""
    data = Prompts(Numbers(), batch_size=2)
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        lightning_module=module, callbacks=list(callbacks), global_rank=rank, world_size=world
    )
    return {batch.number: [sample.index for sample in batch.samples] for batch in data.predict_dataloader()}


ALL = {0: [6, 5], 1: [4, 3], 2: [2, 1], 3: [0]}


@pytest.mark.parametrize(
    ("module", "callbacks", "finished"),
    [
        (object(), [object()], set()),
        (object(), [object(), Keeper(1, 3)], {1, 3}),
        (Keeper(0), [object()], {0}),
        (Keeper(0, 1), [Keeper(1, 2)], {1}),  # every keeper must have it
        (Keeper(0, 1), [Keeper()], set()),
    ],
)
def test_batches_that_every_keeper_finished_are_skipped(module: Any, callbacks: Any, finished: set[int]) -> None:
    assert batches(module, callbacks) == {number: ALL[number] for number in ALL if number not in finished}


def test_processes_share_the_batches_that_are_left() -> None:
    parts = [batches(object(), [Keeper(1)], rank, world=2) for rank in range(2)]
    assert parts == [{0: ALL[0], 3: ALL[3]}, {2: ALL[2]}]
    assert batches(object(), [Keeper(0, 1, 2, 3)]) == {-1: []}  # a process without work gets one empty batch


def test_stages_that_keep_results_say_so() -> None:
    from extract.pipeline import ScoreWriter
    from probe.experiments.ablation import Ablation

    assert isinstance(ScoreWriter(), KeepsBatches)
    assert isinstance(Ablation(), RunsPasses)

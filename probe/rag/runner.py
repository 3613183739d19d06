"""Masked dynamic RAG on the questions of a task, under several strategies."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from extract.attention import slots_of
from extract.errors import UserError
from extract.generation import ContextMaskedLLM
from extract.heads import HeadGrid
from extract.llm import LLM
from extract.store import shared_names
from extract.tasks import MultiHopQA
from extract.utils import Progress, digest
from probe.models import ProbeRegressor
from probe.rag.loop import Run, RunSettings
from probe.rag.question import Question
from probe.rag.requests import Steps, run_together
from probe.rag.results import Trace
from probe.rag.results.trace import run_trace
from probe.rag.settings import Decoding
from probe.rag.strategies import Strategy, Windows
from probe.rag.triggers import Trigger

VIEWS = 2
"""Views of a question whose keys are kept, beside one for each strategy: of the full context, and without it."""


class RagRunner:
    """Answers questions of a task under retrieval strategies.

    Args:
        task: The questions.
        strategies: What may become visible.
        llm: The frozen model.
        decoding: Settings of Algorithm 1.

    """

    def __init__(self, task: MultiHopQA, strategies: Sequence[Strategy], llm: LLM, decoding: Decoding) -> None:
        self.task, self.strategies, self.llm, self.decoding = task, strategies, llm, decoding
        self.grid = HeadGrid(llm.identity.layers, llm.identity.heads)

    def prepare(self, windows: Windows, trigger: Trigger) -> None:
        """Prepare strategies and questions.

        Args:
            windows: For strategies without their own.
            trigger: Likewise.

        Raises:
            UserError: settings out of range, or a task without full contexts.

        """
        for strategy in self.strategies:
            strategy.prepare(windows, trigger)
        self._check_strategies()
        self.task.prepare(self.llm)
        first = self.task.sample(self.task.order()[0])
        if first.forced is not None or self.task.context != "full":
            raise UserError("rag task: it needs context: full and teacher_forcing: false")
        self._without_context = self.task.without_context()
        self._first_prompt = digest(first.ids)

    def _check_strategies(self) -> None:
        names = [strategy.name for strategy in self.strategies]
        if not names or len(set(names)) < len(names):
            raise UserError(f"rag strategies need distinct names, not {names}")
        most = max(one.windows.heads for one in self.strategies if one.windows)
        if most > len(self.grid):
            raise UserError(f"rag windows: {most} heads of an LLM that has {len(self.grid)}")

    def set_probe(self, probe: ProbeRegressor, allow_seen: bool) -> None:
        """Give the strategies the probe as it is now.

        Args:
            probe: The probe.
            allow_seen: Accept questions that are among its training or validation samples.

        Raises:
            UserError: a probe of another LLM, or one that was trained on these questions.

        """
        identity = self.llm.identity
        probe.check_llm(identity)
        if (heads := probe.head_means.numel()) != len(self.grid):
            raise UserError(f"the probe predicts {heads} heads, but {identity} has {len(self.grid)}")
        for strategy in self.strategies:
            probe.check_scores(strategy.excluded, 0, f"rag strategy '{strategy.name}'")
        samples = (self.task.sample(number) for number in self.task.order())
        # A probe of an early version knows questions by their names in the source.
        shared = shared_names(({one.id, one.name} for one in samples), probe.training_ids)
        self.seen_questions = len(shared)
        if shared and not allow_seen:
            raise UserError(
                f"{len(shared)} of the questions were training or validation samples of this probe ({shared[0]}, …); "
                "take others, or set allow_seen to tune on them"
            )
        self.llm.to(probe.device)
        for strategy in self.strategies:
            strategy.set_probe(probe)

    def batches(self) -> dict[int, list[int]]:
        """Numbers of the questions, by the number of their batch."""
        return dict(enumerate(_chunks(self.task.order(), self.decoding.batch_size)))

    def describe(self) -> dict[str, Any]:
        """What determines the answers, apart from the probe, in plain values."""
        return {
            "llm": self.llm.identity.as_dict(),
            "task": self.task.describe(),
            "prompts": {"chat": self.llm.chat, "first_prompt_sha256": self._first_prompt},
            "strategies": {strategy.name: strategy.describe() for strategy in self.strategies},
            **self.decoding.describe(),
            "mask": ContextMaskedLLM(self.llm).exact_mask(self.decoding.mask),
        }

    def run_all(self, numbers: Sequence[int], strategies: Sequence[Strategy]) -> list[Trace]:
        """Traces of questions under some of the strategies, batch by batch."""
        if not strategies:
            return []
        rank_zero_info(f"masked RAG: {len(numbers)} questions under {', '.join(one.name for one in strategies)}")
        batches = _chunks(numbers, self.decoding.batch_size)
        with RunProgress(len(numbers) * len(strategies)) as progress:
            return [one for batch in batches for one in self.run(batch, strategies, progress.ended)]

    def run(self, numbers: Sequence[int], strategies: Sequence[Strategy], ended: Callable[[int], None]) -> list[Trace]:
        """Traces of one batch of questions under some of the strategies; `ended` counts finished runs."""
        masked = ContextMaskedLLM(self.llm, keep=len(strategies) + VIEWS)
        exact = dataclasses.replace(self.decoding, mask=masked.exact_mask(self.decoding.mask))
        settings = RunSettings.of(self.task, exact, not masked.windowed, self.llm.tokenizer)
        questions = [Question.from_task(self.task, self._without_context, number) for number in numbers]
        runs = [
            [Run(question, strategy, settings, self.llm.tokenizer) for strategy in strategies] for question in questions
        ]
        run_together(masked, [_steps(masked, own) for own in runs], ended, self._slots(questions, len(strategies)))
        return [self._trace(run) for own in runs for run in own]

    def _slots(self, questions: Sequence[Question], strategies: int) -> int | None:
        """Questions that run together; None: all."""
        # Of each question the views that are kept and, for each strategy, the row that is decoded.
        views = 2 * strategies + VIEWS
        lengths = [views * (len(question.sample.ids) + self.task.budget) for question in questions]
        return slots_of(self.decoding.slots, self.llm.model, lengths)

    def _trace(self, run: Run) -> Trace:
        """Trace of a finished run, with the metrics of its answer."""
        metrics = self.task.grade_all(run.question.sample, run.text, run.forced_text)
        return run_trace(run, metrics, self.grid)


class RunProgress(Progress):
    """Progress by runs, a question under a strategy each.

    Args:
        runs: Their number.

    """

    def __init__(self, runs: int) -> None:
        super().__init__("masked RAG", runs, "runs", delay=0.0)
        self._done = 0
        self.show(0)

    def ended(self, runs: int) -> None:
        """Some more have ended."""
        self._done += runs
        self.show(self._done)


def _steps(masked: ContextMaskedLLM, runs: Sequence[Run]) -> list[Steps]:
    """The runs of a question, whose keys are freed at the end of the last of them."""
    left = len(runs)

    def steps(run: Run) -> Steps:
        nonlocal left
        yield from run.steps()
        left -= 1
        if not left:
            masked.forget(run.question.sample.index)

    return [steps(run) for run in runs]


def _chunks(numbers: Sequence[int], size: int) -> list[list[int]]:
    return [list(numbers[start : start + size]) for start in range(0, len(numbers), size)]

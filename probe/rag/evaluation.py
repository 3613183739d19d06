"""The callback that puts a probe to use: masked dynamic RAG on questions of its own (Table 4)."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from tqdm import tqdm

from datamodules import ScoreRows
from extract.errors import UserError
from extract.generation import ContextMaskedLLM, MaskMode
from extract.llm import LLM
from extract.tasks import MultiHopQA
from extract.utils import digest, on_rank_zero, write_bytes
from probe.models import ProbeRegressor
from probe.rag.loop import Run, Settings, run_together
from probe.rag.outcomes import RagOutcomes, RagResults, Trace
from probe.rag.question import ask
from probe.rag.strategies import Strategy, Windows
from probe.rag.trace import trace
from probe.rag.triggers import RIND, Trigger
from probe.results import Artifacts, Trials


class RagEvaluation(Callback):
    """Answer questions with a masked context under several strategies, with the probe that the Trainer tests or fits.

    In `test` it runs every strategy on every question, prints the table, and writes results, figures and traces; a
    killed run goes on where it stopped. In `fit`, with `every_n_epochs`, it logs EM, F1 and recall as `rag/…`.

    Args:
        task: The questions. They belong to this callback; the data module holds the probe's own rows.
        strategies: What may become visible; the first is the one that others are compared with.
        llm: The frozen model (linked from the top-level `llm:`).
        trigger: When to retrieve; by default RIND.
        windows: Settings of Algorithm 2.
        mask: How hidden tokens are hidden (see `extract.generation.MaskMode`).
        draft_length: Most tokens of a draft.
        retries: Retrievals that one sentence may call for.
        batch_size: Questions run together, each under all strategies; answers do not depend on it.
        every_n_epochs: In `fit`: epochs from one evaluation to the next; 0 for none.
        allow_seen: Evaluate on the probe's own training or validation questions, too: to tune settings, not to report.
        trials: Folder of finished batches.
        folder: Where results go; by default the run's log folder.
        resamples, seed: Of the bootstrap over questions.

    """

    def __init__(
        self,
        task: MultiHopQA,
        strategies: list[Strategy],
        llm: LLM | None = None,
        trigger: Trigger | None = None,
        windows: Windows = Windows(),  # noqa: B008 (frozen)
        mask: MaskMode = "packed",
        draft_length: int = 64,
        retries: int = 2,
        batch_size: int = 4,
        every_n_epochs: int = 0,
        allow_seen: bool = False,
        trials: str = "runs/rag/trials",
        folder: str | None = None,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.task, self.strategies, self._llm = task, strategies, llm
        self.trigger, self.windows, self.mask = trigger or RIND(), windows, mask
        self.draft_length, self.retries, self.batch_size = draft_length, retries, batch_size
        self.every_n_epochs, self.allow_seen = every_n_epochs, allow_seen
        self.trials, self.artifacts = Trials(trials), Artifacts(folder)
        self.resamples, self.seed = resamples, seed
        self._constant: list[Trace] = []

    @property
    def llm(self) -> LLM:
        """The frozen model."""
        if self._llm is None:
            raise UserError("RagEvaluation needs a frozen LLM: give the config an `llm:`")
        return self._llm

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be evaluated before any work begins."""
        del stage
        if not isinstance(pl_module, ProbeRegressor):
            raise UserError(
                f"masked RAG needs a regressor's checkpoint (configs/regressor.yaml); this is a "
                f"{type(pl_module).__name__}, which predicts {getattr(pl_module, 'target', 'no reasoning scores')}"
            )
        if min(self.draft_length, self.retries, self.batch_size) < 1 or self.every_n_epochs < 0:
            raise UserError(
                "RagEvaluation: draft_length, retries, batch_size of at least 1, every_n_epochs of 0 or more"
            )
        self._check_store(trainer)
        for strategy in self.strategies:
            strategy.prepare(self.windows, self.trigger)
        names = [strategy.name for strategy in self.strategies]
        if not names or len(set(names)) < len(names):
            raise UserError(f"RagEvaluation: strategies need names of their own, not {names}")
        self.task.prepare(self.llm)
        if (first := self.task.sample(self.task.order()[0])).forced is not None or self.task.context != "full":
            raise UserError("RagEvaluation: its task needs context: full and teacher_forcing: false")
        heads = self.llm.identity.layers * self.llm.identity.heads
        if most := max((s.windows.heads for s in self.strategies if s.windows and s.windows.heads > heads), default=0):
            raise UserError(f"rag windows: {most} heads of an LLM that has {heads}")
        self._without = self.task.without_context()
        self._first_prompt = digest(first.ids)

    def _check_store(self, trainer: Trainer) -> None:
        rows: Any = trainer.datamodule  # type: ignore[attr-defined]
        identity = self.llm.identity
        if isinstance(rows, ScoreRows) and not rows.identity.same_model(identity):
            raise UserError(f"store {rows.store_path} holds heads of {rows.identity}, but the llm is {identity}")

    def _set_probe(self, probe: ProbeRegressor) -> None:
        """The probe as it is now: its LLM, its heads, and what it was trained on."""
        identity = self.llm.identity
        probe.check_llm(identity)
        if (heads := identity.layers * identity.heads) != probe.head_means.numel():
            raise UserError(f"the probe knows {probe.head_means.numel()} heads, but {identity} has {heads}")
        trained = probe.training_ids
        shared = [name for number in self.task.order() if (name := self.task.sample(number).id) in trained]
        if shared and not self.allow_seen:
            raise UserError(
                f"{len(shared)} of the questions were training or validation samples of this probe ({min(shared)}, …); "
                "take others, or set allow_seen to tune on them"
            )
        self.llm.to(probe.device)
        for strategy in self.strategies:
            strategy.set_probe(probe)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Meet a probe that is to be evaluated while it trains, so that a wrong one is refused before it does."""
        del trainer
        assert isinstance(pl_module, ProbeRegressor)
        if self.every_n_epochs:
            self._set_probe(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Meet the probe before its own test, so that a wrong one is refused at once."""
        del trainer
        assert isinstance(pl_module, ProbeRegressor)
        self._set_probe(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run what is left, and report."""
        assert isinstance(pl_module, ProbeRegressor)
        settings = {"probe": pl_module.training_record, "probe_weights": _weights(pl_module), **self._describe()}
        done = set(on_rank_zero(trainer, lambda: self.trials.open(settings)))
        order = self.task.order()
        batches = {
            n: order[n * self.batch_size : (n + 1) * self.batch_size] for n in range(-(-len(order) // self.batch_size))
        }
        left = [n for n in batches if n not in done][trainer.global_rank :: trainer.world_size]
        for number in tqdm(left, desc="Masked RAG, batches of questions", disable=not trainer.is_global_zero):
            self.trials.write(number, self._run(batches[number], self.strategies))
        trainer.strategy.barrier("rag")
        self._report(settings, trainer)

    def _describe(self) -> dict[str, Any]:
        """What determines the answers, beside the probe."""
        return {
            "llm": self.llm.identity.as_dict(),
            "task": self.task.describe(),
            "prompts": {"chat": self.llm.chat, "first_prompt_sha256": self._first_prompt},
            "strategies": {strategy.name: strategy.describe() for strategy in self.strategies},
            "mask": ContextMaskedLLM(self.llm).exact_mask(self.mask),
            "draft_length": self.draft_length,
            "retries": self.retries,
            "batch_size": self.batch_size,
        }

    def _run(self, numbers: Sequence[int], strategies: Sequence[Strategy]) -> list[Trace]:
        """Traces of some questions under some strategies, run together."""
        task = self.task
        masked = ContextMaskedLLM(self.llm, keep=len(strategies) + 2)
        settings = Settings.of(
            task, masked.exact_mask(self.mask), self.draft_length, self.retries, keeps=not masked.windowed
        )
        questions = [ask(task, self._without, number) for number in numbers]
        runs = [Run(question, one, settings, self.llm.tokenizer) for question in questions for one in strategies]
        run_together(masked, runs)
        per_layer = self.llm.identity.heads
        return [trace(run, task.grade(run.question.sample, run.text), per_layer) for run in runs]

    def _report(self, settings: dict[str, Any], trainer: Trainer) -> None:
        traces = self.trials.read()
        names = [strategy.name for strategy in self.strategies]
        if len(traces) != len(self.task) * len(names):
            raise UserError(f"{self.trials.folder}: {len(traces)} of {len(self.task) * len(names)} runs; run it again")
        outcomes = RagOutcomes.of(traces, names, self.resamples, self.seed)
        kept = {key: value for key, value in settings.items() if key != "probe"}
        origin = {key: value for key, value in settings["probe"].items() if key != "seen"}
        results = {"probe": origin, **kept, "strategy_settings": kept.pop("strategies"), **outcomes.results()}
        title = f"Masked dynamic RAG of {self.llm.name}: {len(self.task)} questions, mask {settings['mask']}"
        self.artifacts.write(RagResults(results, outcomes, title, self.strategies), trainer)
        folder = self.artifacts.path(trainer)
        if trainer.is_global_zero:
            lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in outcomes.traces)
            write_bytes(folder / "traces.jsonl", lines.encode())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """While the probe trains: how well it serves. Strategies that do not use it are run once."""
        every = self.every_n_epochs
        trains = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not trains or not every or (trainer.current_epoch + 1) % every:
            return
        assert isinstance(pl_module, ProbeRegressor)
        self._set_probe(pl_module)
        order = self.task.order()[trainer.global_rank :: trainer.world_size]
        moving = [strategy for strategy in self.strategies if strategy.uses_probe]
        if not self._constant:
            self._constant = self._all(order, [one for one in self.strategies if one not in moving])
        for label, figures in _means(_gathered(trainer, [*self._all(order, moving), *self._constant])).items():
            for name, value in figures.items():
                pl_module.log(f"rag/{name}/{label}", value, sync_dist=True)

    def _all(self, numbers: list[int], strategies: list[Strategy]) -> list[Trace]:
        size = self.batch_size
        if not strategies:
            return []
        rank_zero_info(f"masked RAG: {len(numbers)} questions under {', '.join(one.name for one in strategies)}")
        parts = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        return [one for part in parts for one in self._run(part, strategies)]


def _gathered(trainer: Trainer, traces: list[Trace]) -> list[Trace]:
    """The traces of all processes, on each."""
    ranks = range(trainer.world_size)
    return [one for rank in ranks for one in trainer.strategy.broadcast(traces, src=rank)]


def _means(traces: list[Trace]) -> dict[str, dict[str, float]]:
    """Means of what is logged in `fit`, by strategy."""
    found: dict[str, dict[str, float]] = {}
    for label in dict.fromkeys(one["strategy"] for one in traces):
        mine = [one["metrics"] for one in traces if one["strategy"] == label]
        means = {name: np.array([one[name] for one in mine], np.float64) for name in ("em", "f1", "first_recall")}
        found[label] = {name: float(v[np.isfinite(v)].mean()) for name, v in means.items() if np.isfinite(v).any()}
    return found


def _weights(probe: ProbeRegressor) -> str:
    """A fingerprint of the trained weights, so that a run does not go on with another probe's."""
    raw = {name: value.cpu().reshape(-1).view(torch.uint8) for name, value in probe.state_dict().items()}
    return digest({name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in raw.items()})

"""Masked dynamic RAG as a Lightning callback: Table 4, with the probe that the Trainer tests."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from datamodules import ScoreRows
from extract.errors import UserError
from extract.llm import LLM
from extract.stopping import STOP
from extract.tasks import MultiHopQA
from extract.utils import on_rank_zero, with_store_name
from probe.metrics import Bootstrap
from probe.models import ProbeRegressor, weights_digest
from probe.rag.results.outcomes import RagOutcomes
from probe.rag.results.reporting import RagResults, write_traces
from probe.rag.runner import RagRunner, RunProgress
from probe.rag.settings import Decoding
from probe.rag.strategies import Strategy, Windows
from probe.rag.triggers import RIND, Trigger
from probe.results import Artifacts, Trials


class RagCallback(Callback):
    """Masked RAG on the questions of a task, with the probe that the Trainer trains or tests.

    Args:
        task: The questions. They belong to this callback; the data module holds the probe's own rows.
        strategies: What may become visible; the first is the reference that others are compared with.
        llm: The frozen model (linked from the top-level `llm:`).
        trigger: When to retrieve; by default RIND.
        windows: Settings of Algorithm 2.
        decoding: Settings of Algorithm 1.
        allow_seen: Evaluate on the probe's own training or validation questions, too: to tune settings, not to report.

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
    ) -> None:
        self.task, self.strategies, self._llm = task, strategies, llm
        self.trigger, self.windows, self.decoding = trigger or RIND(), windows, decoding
        self.allow_seen = allow_seen

    @property
    def llm(self) -> LLM:
        """The frozen model."""
        if self._llm is None:
            raise UserError(f"{type(self).__name__} needs a frozen LLM: give the config an `llm:`")
        return self._llm

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be evaluated before any work begins."""
        del stage
        if not isinstance(pl_module, ProbeRegressor) or pl_module.target != "reasoning":
            raise UserError(
                f"masked RAG needs a regressor's checkpoint (configs/regressor.yaml); this is a "
                f"{type(pl_module).__name__}, which predicts {getattr(pl_module, 'target', 'no reasoning scores')}"
            )
        self._check_store(trainer)
        self.runner = RagRunner(self.task, self.strategies, self.llm, self.decoding)
        self.runner.prepare(self.windows, self.trigger)

    def _check_store(self, trainer: Trainer) -> None:
        rows: Any = trainer.datamodule  # type: ignore[attr-defined]
        identity = self.llm.identity
        if isinstance(rows, ScoreRows) and not rows.identity.same_model(identity):
            differ = rows.identity.differences(identity)
            raise UserError(
                f"store {rows.store_path} holds heads of {rows.identity}, but the llm is {identity}, "
                f"which differs in {differ}"
            )

    def set_probe(self, pl_module: LightningModule) -> ProbeRegressor:
        """Use the probe as it is now; one that does not fit the LLM or the questions raises a UserError."""
        assert isinstance(pl_module, ProbeRegressor)
        self.runner.set_probe(pl_module, self.allow_seen)
        return pl_module


class RagEvaluation(RagCallback):
    """In `test`, answer questions with a masked context under several strategies (Table 4).

    It prints the tables and writes results, plots and traces; an interrupted run continues where it stopped.

    Args:
        task, strategies, llm, trigger, windows, decoding, allow_seen: See `RagCallback`.
        trials: Folder of finished batches; `{store}` is the name of the folder of the probe's store.
        folder: Where results go; by default the run's log folder.
        bootstrap: Bootstrap over questions, for 95 % intervals.

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
        trials: str = "runs/rag/{store}/trials",
        folder: str | None = None,
        bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(task, strategies, llm, trigger, windows, decoding, allow_seen)
        self.trials, self.artifacts = Trials(trials), Artifacts(folder)
        self.bootstrap = bootstrap

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a wrong probe before its own test runs."""
        rows: Any = trainer.datamodule  # type: ignore[attr-defined]
        store = getattr(rows, "store_path", "store")
        self.trials = Trials(with_store_name(str(self.trials.folder), store))
        self.artifacts.refuse_other_files(trainer)
        self.set_probe(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the batches that are not finished, and report."""
        assert isinstance(pl_module, ProbeRegressor)
        probe = {
            "probe": pl_module.training_record,
            "probe_weights": weights_digest(pl_module),
            "probe_blend": pl_module.blend,
            "probe_dtype": str(pl_module.head_means.dtype).removeprefix("torch."),
        }
        settings = {**probe, **self.runner.describe()}
        done = set(on_rank_zero(trainer, lambda: self.trials.open(settings)))
        self._run(trainer, done)
        trainer.strategy.barrier("rag")
        outcomes, folder = self._outcomes(), self.artifacts.path(trainer)
        seen = {"allow_seen": self.allow_seen, "seen_questions": self.runner.seen_questions}
        self.artifacts.write(RagResults(outcomes, self.strategies, {**settings, **seen}), trainer)
        if trainer.is_global_zero:
            write_traces(folder / "traces.jsonl", outcomes.traces)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let other runs write to the trials."""
        del trainer, pl_module, stage
        self.trials.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same where the run failed or was stopped."""
        del trainer, pl_module, exception
        self.trials.close()

    def _run(self, trainer: Trainer, done: set[int]) -> None:
        """Every process runs its share of the batches that are left."""
        batches = self.runner.batches()
        left = [number for number in batches if number not in done][trainer.global_rank :: trainer.world_size]
        with RunProgress(sum(len(batches[number]) for number in left) * len(self.strategies)) as progress:
            for number in left:
                with STOP.batch():
                    self.trials.write(number, self.runner.run(batches[number], self.strategies, progress.ended))

    def _outcomes(self) -> RagOutcomes:
        traces, expected = self.trials.read(), len(self.task) * len(self.strategies)
        if len(traces) != expected:
            raise UserError(f"{self.trials.folder}: {len(traces)} of {expected} runs; run it again")
        names = [strategy.name for strategy in self.strategies]
        return RagOutcomes.of(traces, names, self.bootstrap)

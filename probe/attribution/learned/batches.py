"""Batches of training answers: what every head has on the kept sources of each ablated run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules import EpochShare, ResumableLoader, Share, Split
from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.utils import PositiveInt, Seed, check_precision, digest
from probe.attribution.learned.effects import AnswerEffects, EffectStore, Features, source_features

Part = Literal["train", "val", "test"]
LEAST_RUNS = 3
"""Ablated runs that an answer needs for a correlation."""


class EffectBatch(NamedTuple):
    """Training answers, their tokens one after the other.

    Attributes:
        hidden: Final hidden state of the query that chose each token.
        kept: What each head has on the kept sources of each run: `Σ_s mask[r, s] · a[t, h, s]`.
        log_probs: Of each token in each run.
        answer: Number of each token's answer in the batch.
        known: Which runs each answer has; others are padding.

    """

    hidden: Float[Tensor, "token hidden"]
    kept: Float[Tensor, "token run head"]
    log_probs: Float[Tensor, "token run"]
    answer: Int[Tensor, "token"]
    known: Bool[Tensor, "answer run"]


@dataclass(frozen=True, eq=False)
class TrainingAnswer:
    """One answer in memory, its features in float16."""

    features: Float[Tensor, "token head source"]
    hidden: Float[Tensor, "token hidden"]
    masks: Bool[Tensor, "run source"]
    log_probs: Float[Tensor, "run token"]

    @classmethod
    def of(cls, effects: AnswerEffects, features: Features) -> "TrainingAnswer":
        """The answer of some effects; sources that are not ablated are left out."""
        matrix = source_features(effects.record, features)
        return cls(matrix.half(), effects.record.hidden, effects.masks, effects.run_log_probs)

    def kept(self) -> Float[Tensor, "token run head"]:
        """What each head has on the kept sources of each run."""
        return torch.einsum("ths,rs->trh", self.features.float(), self.masks.float())


def batch_of(answers: Sequence[TrainingAnswer]) -> EffectBatch:
    """Answers in one batch; runs are padded."""
    runs = max(len(one.masks) for one in answers)
    known = torch.stack([torch.arange(runs) < len(one.masks) for one in answers])
    lengths = torch.tensor([len(one.hidden) for one in answers])

    def padded(values: Tensor) -> Tensor:
        """Values [token, run, …] of as many runs as the batch has."""
        return torch.cat([values, values.new_zeros(len(values), runs - values.shape[1], *values.shape[2:])], dim=1)

    return EffectBatch(
        torch.cat([one.hidden for one in answers]),
        torch.cat([padded(one.kept()) for one in answers]),
        torch.cat([padded(one.log_probs.T) for one in answers]),
        torch.repeat_interleave(torch.arange(len(answers)), lengths),
        known,
    )


class EffectBatches(Dataset[EffectBatch | None]):
    """Batches of answers by (batch number, epoch); None past the last.

    Args:
        answers: Of one part.
        batch_size: Answers a batch.
        seed: Shuffle the answers anew each epoch; None keeps their order.

    """

    def __init__(self, answers: Sequence[TrainingAnswer], batch_size: int, seed: int | None = None) -> None:
        self.answers, self.batch_size, self.seed = answers, batch_size, seed

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.answers) / self.batch_size)

    def order(self, epoch: int) -> list[int]:
        """Answers in an epoch's order, which seed and epoch alone determine."""
        if self.seed is None:
            return list(range(len(self.answers)))
        order: list[int] = np.random.default_rng([self.seed, epoch]).permutation(len(self.answers)).tolist()
        return order

    def __getitem__(self, key: tuple[int, int] | int) -> EffectBatch | None:
        """The batch of a (number, epoch) pair of `EpochShare`, or of a number alone in the first epoch."""
        number, epoch = (key, 0) if isinstance(key, int) else key
        chosen = self.order(epoch)[number * self.batch_size : (number + 1) * self.batch_size]
        return batch_of([self.answers[one] for one in chosen]) if chosen else None


class AblationEffects(LightningDataModule):
    """Training answers with the effects of random ablations on them, divided by question.

    Args:
        store: Folder of `EffectExtraction` (linked from the top-level `store:`).
        more_stores: Further ones of the same LLM, such as of other questions.
        split: Which answers are for training, and which for validation; all answers to a question belong to one part.
        batch_size: Answers a batch.
        seed: Of the shuffling.

    """

    def __init__(
        self,
        store: str = "stores/effects",
        more_stores: list[str] | None = None,
        split: Split = Split(fractions=(0.8, 0.2, 0.0)),  # noqa: B008 (frozen)
        batch_size: PositiveInt = 16,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.stores = [EffectStore(folder) for folder in (store, *(more_stores or ()))]
        self.split, self.batch_size, self.seed = split, batch_size, seed

    @property
    def identity(self) -> LLMIdentity:
        """The LLM whose answers these are."""
        return self.stores[0].identity()

    @property
    def hidden_size(self) -> int:
        """Size of the hidden states; the CLI links it into the model."""
        return self.identity.hidden_size

    @property
    def num_heads(self) -> int:
        """Number of heads in all layers; the CLI links it into the model."""
        return self.identity.layers * self.identity.heads

    @property
    def fingerprint(self) -> str:
        """Hash of what the stores were made with."""
        return digest([store.fingerprint() for store in self.stores])

    def setup(self, stage: str) -> None:
        """Read and divide the answers.

        Raises:
            UserError: a store is missing, unfinished or of another LLM, or a part is empty.

        """
        del stage
        if self.trainer is not None:
            check_precision(self.trainer)
        self._check_stores()
        module: Any = self.trainer and self.trainer.lightning_module
        features: Features | None = getattr(module, "features", None)
        found = [one for store in self.stores for one in store.read() if len(one.masks) >= LEAST_RUNS]
        if not found:
            raise UserError(
                f"{self.stores[0].folder}: no answer has {LEAST_RUNS} ablated runs, so that nothing can be learned; "
                "make effects of other questions or of contexts with more sources"
            )
        self.ids = [one.id for one in found]
        self._numbers = np.unique(self.ids, return_inverse=True)[1].astype(np.int64)
        parts = self.split.rows(self._numbers)
        self._rows: dict[str, list[int]] = {name: part.tolist() for name, part in parts.items()}
        # Trained weights read one matrix of each answer; what reads none, the choice of a method, reads whole records.
        self.effects = found if features is None else []
        self._answers = [TrainingAnswer.of(one, features) for one in found] if features else []

    def _check_stores(self) -> None:
        own = self.stores[0].settings()
        for store in self.stores[1:]:
            other = store.settings()
            if not self.identity.same_model(identity := store.identity()):
                raise UserError(f"{store.folder} has answers of {identity}, but {self.stores[0].folder} of another LLM")
            if other["unit"] != own["unit"]:
                raise UserError(
                    f"{store.folder} has a {other['unit']} as source, but {self.stores[0].folder} a {own['unit']}"
                )

    def part_ids(self, part: Part) -> set[str]:
        """Ids of the questions of a part."""
        return {self.ids[row] for row in self._rows[part]}

    def split_record(self) -> dict[str, Any]:
        """The division in plain values, for checkpoints."""
        return self.split.record(self._numbers)

    def held_out(self) -> list[AnswerEffects]:
        """Whole records of the validation answers."""
        return [self.effects[row] for row in self._rows["val"]]

    def batches(self, part: Part) -> EffectBatches:
        """The batches of a part; training ones are shuffled anew each epoch."""
        answers = [self._answers[row] for row in self._rows[part]]
        return EffectBatches(answers, self.batch_size, self.seed if part == "train" else None)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches of the training answers; an epoch that was interrupted goes on."""
        assert self.trainer is not None
        batches, loop = self.batches("train"), self.trainer.fit_loop
        share = EpochShare(len(batches), self.trainer.global_rank, self.trainer.world_size, even=True)
        loader = ResumableLoader(batches, batch_size=None, sampler=share, generator=torch.Generator())
        progress = loop.epoch_loop.batch_progress
        loader.position = lambda: 0 if progress.is_last_batch else progress.current.ready
        epochs: Any = loop.epoch_progress.current
        share.set_epoch(epochs.processed)
        return loader

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of the validation answers, in order."""
        assert self.trainer is not None
        batches = self.batches("val")
        share = Share(len(batches), self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(batches, batch_size=None, sampler=share)

    def test_dataloader(self) -> DataLoader[Any]:
        """The validation answers, one at a time, for the choice of a method."""
        assert self.trainer is not None
        count = len(self._rows["val"])
        share = Share(count, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(range(count + 1), batch_size=None, sampler=share)  # type: ignore[arg-type]

"""Score rows for probes: (hidden state, scores of all heads) in shuffled batches from memory maps."""

import functools
import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from lightning import LightningDataModule
from lightning.pytorch.utilities.types import EVAL_DATALOADERS
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.columns import Columns
from datamodules.samplers import EpochShare
from datamodules.splits import Split
from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.scores import Target
from extract.store import ScoreStore


class Rows(NamedTuple):
    """A batch of score rows.

    Attributes:
        hidden: Final hidden states.
        scores: Target of each head: 0 or 1 (Eq. 1), or in [0, 1] with NaN for none (Eq. 2).
        sample: The sample each row comes from.

    """

    hidden: Float[Tensor, "row hidden"]
    scores: Float[Tensor, "row head"]
    sample: Int[Tensor, "row"]


class RowBatches(Dataset[Rows]):
    """Batches of a split, by batch number; the number past the last is an empty batch.

    Args:
        columns: Of the store that the split lies in.
        rows: Store rows of this split, whose hidden states are read.
        offset: The scores read are those of `offset` rows later.
        batch_size: Rows a batch.
        seed: Shuffle the rows anew each epoch; None keeps their order.

    """

    def __init__(
        self,
        columns: Columns,
        rows: NDArray[np.int64],
        offset: int,
        batch_size: int,
        seed: int | None = None,
    ) -> None:
        self.columns = columns
        self.rows, self.offset, self.batch_size, self.seed = rows, offset, batch_size, seed
        self._shuffled: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.rows) / self.batch_size)

    def epoch_rows(self, epoch: int) -> NDArray[np.int64]:
        """The split's rows in an epoch's order: fixed by seed and epoch alone, on every process."""
        if self.seed is None:
            return self.rows
        if self._shuffled is None or self._shuffled[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
            self._shuffled = (epoch, self.rows[order])
        return self._shuffled[1]

    def batch(self, number: int, epoch: int = 0) -> Rows:
        """One batch of an epoch, its rows in the store's order: which rows share a batch is what is shuffled."""
        rows = np.sort(self.epoch_rows(epoch)[number * self.batch_size : (number + 1) * self.batch_size])
        return self.read(rows)

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Rows of the store by their numbers, ascending."""
        hidden = torch.from_numpy(self.columns.hidden.take(rows)).float()
        scores = torch.from_numpy(self.columns.scores.take(rows + self.offset)).float()
        return Rows(hidden, scores, torch.from_numpy(self.columns.sample[rows]))

    def __getitem__(self, key: tuple[int, int]) -> Rows:
        """The batch of a (number, epoch) pair, as `EpochShare` draws them."""
        return self.batch(*key)


Part = Literal["train", "val", "test"]


class ScoreRows(LightningDataModule):
    """Rows of a complete score store, split, shuffled and batched.

    Args:
        store: The store's folder (linked from the top-level `store:`).
        target: The score to predict: `copy_paste` (Eq. 1) or `reasoning` (Eq. 2).
        split: How rows are divided into training, validation and test.
        test_store: Take all rows of this other store as the test split: another dataset's questions, say. It may share
            no sample with what is trained or validated on.
        batch_size: Rows a batch (A.5: 128).
        offset: Predict the scores this many steps ahead in the same sample (k of A.4).
        seed: Of the shuffling.
        num_workers: Loader processes; 0 reads in the training process, which suffices for memory maps.
        verify: Compare the store with its hashes before use.

    """

    def __init__(
        self,
        store: str = "stores/niah",
        target: Target = "copy_paste",
        split: Split = Split(),  # noqa: B008 (frozen)
        test_store: str | None = None,
        batch_size: int = 128,
        offset: int = 0,
        seed: int = 0,
        num_workers: int = 0,
        verify: bool = True,
    ) -> None:
        super().__init__()
        self.store_path, self.target, self.split, self.test_path = store, target, split, test_store
        self.batch_size, self.offset, self.seed = batch_size, offset, seed
        self.num_workers, self.verify = num_workers, verify

    @functools.cached_property
    def store(self) -> ScoreStore:
        """The opened store.

        Raises:
            UserError: there is none, or it cannot be trusted.

        """
        return self._open(self.store_path)

    @functools.cached_property
    def test_store(self) -> ScoreStore:
        """The store of the test split, which is the other one unless `test_store` is set.

        Raises:
            UserError: there is none, or it holds another LLM's rows.

        """
        if self.test_path is None:
            return self.store
        store = self._open(self.test_path)
        if not store.identity.same_model(self.store.identity):
            raise UserError(
                f"data.test_store {self.test_path} holds rows of {store.identity}, but {self.store_path} of "
                f"{self.store.identity}"
            )
        return store

    def _open(self, path: str) -> ScoreStore:
        return ScoreStore(path, self.verify, task="hotpotqa" if self.target == "reasoning" else "niah")

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states; the CLI links it into the model."""
        return self.store.hidden_size

    @property
    def num_heads(self) -> int:
        """Number of heads, layers × heads a layer; the CLI links it into the model."""
        return self.store.heads

    @property
    def identity(self) -> LLMIdentity:
        """The LLM whose rows these are."""
        return self.store.identity

    def setup(self, stage: str) -> None:
        """Open the columns and divide the rows."""
        del stage
        if self.batch_size < 1 or self.offset < 0:
            raise UserError(f"data: batch_size {self.batch_size} and offset {self.offset} must be ≥ 1 and ≥ 0")
        own = Columns.of(self.store, self.target)
        self._columns: dict[str, Columns] = dict.fromkeys(("train", "val", "test"), own)
        rows = self.split.rows(own.sample)
        if self.test_path is not None:
            self._columns["test"] = Columns.of(self.test_store, self.target)
            rows["test"] = np.arange(len(self._columns["test"].sample))
        elif not self.split.fractions[2]:
            raise UserError("data.split.fractions: a test share of 0 needs a data.test_store")
        self._rows = {name: self._columns[name].with_future(part, self.offset) for name, part in rows.items()}
        for name, part in self._rows.items():
            if not len(part):
                raise UserError(f"data.offset {self.offset}: no row of the {name} split has a step that far ahead")
        self._refuse_shared()

    def _refuse_shared(self) -> None:
        if self.test_path is None:
            return
        shared = (self.split_ids("train") | self.split_ids("val")) & self.split_ids("test")
        if shared:
            raise UserError(
                f"data.test_store {self.test_path} shares {len(shared)} samples with what {self.store_path} is "
                f"trained and validated on ({min(shared)}, …)"
            )

    def split_ids(self, split: Part) -> set[str]:
        """Ids of the samples that have rows in a split: the same sample bears the same id in every store."""
        store = self.test_store if split == "test" else self.store
        samples = store.samples().select(["sample", "id"])
        ids = dict(zip(samples["sample"].to_pylist(), samples["id"].to_pylist(), strict=True))
        return {ids[number] for number in np.unique(self._columns[split].sample[self._rows[split]]).tolist()}

    def split_record(self) -> dict[str, Any]:
        """The division, for checkpoints."""
        return {**self.split.record(self._columns["train"].sample), "offset": self.offset}

    def batches(self, split: Part) -> RowBatches:
        """The batches of a split; training ones are shuffled anew each epoch."""
        seed = self.seed if split == "train" else None
        return RowBatches(self._columns[split], self._rows[split], self.offset, self.batch_size, seed)

    def _training_chunks(self) -> Iterator[Rows]:
        """All training rows, some tens of thousands at a time."""
        batches = self.batches("train")
        for chunk in np.array_split(batches.rows, max(1, len(batches.rows) // 65536)):
            yield batches.read(chunk)

    def head_means(self) -> Float[Tensor, "head"]:
        """Mean score of each head over the training rows, NaN left out: the static ranking."""
        total = count = torch.zeros(self.num_heads, dtype=torch.float64)
        for rows in self._training_chunks():
            total = total + rows.scores.double().nansum(dim=0)
            count = count + rows.scores.isfinite().sum(dim=0)
        if not count.any():
            raise UserError(
                f"{self.store_path}: no training row has a {self.target} score (prompts no longer than the tokens that "
                "Eq. 2 leaves out?)"
            )
        return (total / count.clamp(min=1)).float()

    def _loader(self, split: Part) -> DataLoader[Rows]:
        batches = self.batches(split)
        assert self.trainer is not None
        share = EpochShare(len(batches), self.trainer.global_rank, self.trainer.world_size, even=split == "train")
        return DataLoader(
            batches,
            batch_size=None,
            sampler=share,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def train_dataloader(self) -> DataLoader[Rows]:
        """Shuffled batches of the training rows."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Rows]:
        """Batches of the validation rows, in order."""
        return self._loader("val")

    def test_dataloader(self) -> EVAL_DATALOADERS:
        """Batches of the test rows, in order."""
        return self._loader("test")

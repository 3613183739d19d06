"""The data module of probes: rows of a score store, split into training, validation and test."""

import functools
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities.types import EVAL_DATALOADERS
from torch.utils.data import DataLoader

from datamodules.columns import Columns
from datamodules.row_batches import RowBatches, Rows
from datamodules.samplers import EpochShare, ResumableLoader
from datamodules.splits import Split
from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.scores import Target
from extract.store import ScoreStore, Verify, shared_names
from extract.utils import NonNegativeInt, PositiveInt, Seed, Workers, check_precision

Part = Literal["train", "val", "test"]
"""A split."""


class ScoreRows(LightningDataModule):
    """Rows of a complete score store, split, shuffled and batched.

    Args:
        store: The store's folder (linked from the top-level `store:`).
        target: The score to predict: `copy_paste` (Eq. 1), `reasoning` (Eq. 2) or `contribution`.
        split: How rows are divided into training, validation and test.
        test_store: Take all rows of this other store as the test split, for instance another dataset's questions. It
            may share no sample with the training and validation splits.
        batch_size: Rows a batch (A.5: 128).
        offset: Predict the scores this many steps ahead in the same sample (k of A.4).
        seed: Of the shuffling.
        num_workers: Loader processes; 0 reads in the training process, which suffices for memory maps.
        verify: Compare the store with its hashes before use: true, only what changed since the last time; always, all.

    """

    def __init__(
        self,
        store: str = "stores/niah",
        target: Target = "copy_paste",
        split: Split = Split(),  # noqa: B008 (frozen)
        test_store: str | None = None,
        batch_size: PositiveInt = 128,
        offset: NonNegativeInt = 0,
        seed: Seed = 0,
        num_workers: Workers = 0,
        verify: Verify = True,
    ) -> None:
        super().__init__()
        self.store_path, self.target, self.split, self.test_path = store, target, split, test_store
        self.batch_size, self.offset, self.seed = batch_size, offset, seed
        self.num_workers, self.verify = num_workers, verify

    @functools.cached_property
    def store(self) -> ScoreStore:
        """The score store, opened on first use.

        Raises:
            UserError: there is none, or it cannot be trusted.

        """
        return self._open(self.store_path)

    @functools.cached_property
    def test_store(self) -> ScoreStore:
        """The store of the test split: that of `data.test_store` where it is set, else the same as `store`.

        Raises:
            UserError: there is none, or it holds another LLM's rows, or other reasoning scores.

        """
        if self.test_path is None:
            return self.store
        store = self._open(self.test_path)
        if not store.identity.same_model(self.store.identity):
            raise UserError(
                f"data.test_store {self.test_path} holds rows of {store.identity}, but {self.store_path} of "
                f"{self.store.identity}, which differs in {store.identity.differences(self.store.identity)}"
            )
        if self.target == "reasoning" and self.store.excluded is not None:
            self.store.excluded.refuse_other(store.excluded, f"data.test_store {self.test_path}", self.store_path)
        return store

    def _open(self, path: str) -> ScoreStore:
        return ScoreStore(path, self.verify, task="hotpotqa" if self.target == "reasoning" else "niah")

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states; the CLI links it into the model."""
        return self.store.hidden_size

    @property
    def num_heads(self) -> int:
        """Number of heads in all layers; the CLI links it into the model."""
        return self.store.heads

    @property
    def identity(self) -> LLMIdentity:
        """The LLM whose rows these are."""
        return self.store.identity

    def setup(self, stage: str) -> None:
        """Open the columns and divide the rows.

        Raises:
            UserError: bad settings, an empty split, or test samples that are trained or validated on.

        """
        del stage
        if self.trainer is not None:
            check_precision(self.trainer)
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
        self._refuse_empty()
        self._refuse_shared()

    def _refuse_empty(self) -> None:
        for name, part in self._rows.items():
            if not len(part):
                raise UserError(f"data.offset {self.offset}: no row of the {name} split has a step that far ahead")

    def _refuse_shared(self) -> None:
        if self.test_path is None:
            return
        if shared := shared_names(self.sample_names("test"), self.split_ids("train") | self.split_ids("val")):
            raise UserError(
                f"data.test_store {self.test_path} shares {len(shared)} samples with the training and validation "
                f"splits of {self.store_path} ({shared[0]}, …): extract others, by another seed or other questions"
            )

    def sample_names(self, split: Part, records: bool = False) -> list[frozenset[str]]:
        """Names of each sample that has rows in a split: see `ScoreStore.sample_names`."""
        names = (self.test_store if split == "test" else self.store).sample_names(records)
        return [names[number] for number in np.unique(self._columns[split].sample[self._rows[split]]).tolist()]

    def split_ids(self, split: Part) -> set[str]:
        """Ids of the samples that have rows in a split; a sample has the same id in every store."""
        return set[str]().union(*self.sample_names(split))

    def split_record(self) -> dict[str, Any]:
        """The division in plain values, for checkpoints and results."""
        return {**self.split.record(self._columns["train"].sample), "offset": self.offset}

    def batches(self, split: Part) -> RowBatches:
        """The batches of a split; training ones are shuffled anew each epoch."""
        return RowBatches(self._columns[split], self._rows[split], self.offset, **self._reading(split))

    def _reading(self, split: Part) -> dict[str, Any]:
        seed = self.seed if split == "train" else None
        return {"batch_size": self.batch_size, "seed": seed, "known": split == "test"}

    def with_known(self, split: Part, hidden: bool = False) -> RowBatches:
        """A split's batches in order, with the scores known before each row, for baselines.

        Args:
            split: Which one.
            hidden: Read hidden states, too, which are most of a store's bytes.

        """
        batches = self.batches(split)
        batches.seed, batches.known, batches.hidden = None, True, hidden
        return batches

    def training_chunks(self, size: int = 65536, known: bool = True) -> Iterator[Rows]:
        """All training rows in order, about `size` at a time: scores alone, and if `known` those known before them."""
        batches = self.with_known("train")
        batches.known = known
        for chunk in np.array_split(batches.rows, max(1, len(batches.rows) // size)):
            yield batches.read(chunk)

    def _loader(self, split: Part) -> DataLoader[Rows]:
        batches = self.batches(split)
        assert self.trainer is not None
        share = EpochShare(len(batches), self.trainer.global_rank, self.trainer.world_size, even=split == "train")
        kind, generator = (ResumableLoader, torch.Generator()) if split == "train" else (DataLoader, None)
        return kind(
            batches,
            batch_size=None,
            sampler=share,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            generator=generator,  # its own for training: see `Resumable`
        )

    def train_dataloader(self) -> DataLoader[Rows]:
        """Shuffled batches of the training rows; an epoch that was interrupted goes on."""
        loader = self._loader("train")
        assert isinstance(loader, ResumableLoader)
        assert isinstance(loader.sampler, EpochShare)
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        progress = loop.epoch_loop.batch_progress
        loader.position = lambda: 0 if progress.is_last_batch else progress.current.ready
        # Its workers read ahead before Lightning tells a resumed run's epoch.
        epochs: Any = loop.epoch_progress.current
        loader.sampler.set_epoch(epochs.processed)
        return loader

    def val_dataloader(self) -> DataLoader[Rows]:
        """Batches of the validation rows, in order."""
        return self._loader("val")

    def test_dataloader(self) -> EVAL_DATALOADERS:
        """Batches of the test rows, in order."""
        return self._loader("test")

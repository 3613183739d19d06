"""Ablation effects: answers with their log-probabilities when random sources are removed, kept batch by batch."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.store import check_identity
from extract.utils import add_zip_hash, check_zip_hash, digest, read_hashed, user_path, write_bytes
from probe.attribution.record import AttributionRecord
from probe.results import Trial, Trials

Array = NDArray[np.generic]
Features = Literal["attention", "contribution", "both"]
"""What is weighted: each head's attention on a source, its logit contribution, or both with a weight each."""
HALF = ("attention", "contribution")
"""Fields that are kept in float16; hidden states and log-probabilities are kept in float32."""
ARRAYS = ("tokens", "log_probs", "entropies", "attention", "contribution", "copies", "hidden")


def source_features(record: AttributionRecord, features: Features) -> Float[Tensor, "token head source"]:
    """What is weighted of each head on each source; with `both`, attention of all heads, then their contributions."""
    names = ("attention", "contribution") if features == "both" else (features,)
    matrices: list[Tensor] = [getattr(record, name)[..., :-2].flatten(1, 2) for name in names]
    return torch.cat(matrices, dim=1)


@dataclass(frozen=True, eq=False)
class AnswerEffects:
    """An answer, and its log-probabilities in random ablations.

    Attributes:
        id: Of the question's sample, the same in every store.
        record: What the decode steps left.
        masks: Which sources each ablated run keeps.
        run_log_probs: Of the answer's tokens in each run.

    """

    id: str
    record: AttributionRecord
    masks: Bool[Tensor, "run source"]
    run_log_probs: Float[Tensor, "run token"]

    def arrays(self) -> dict[str, Array]:
        """Its arrays by name."""
        fields = {name: getattr(self.record, name) for name in ARRAYS}
        fields |= {"masks": self.masks, "run_log_probs": self.run_log_probs}
        return {name: (value.half() if name in HALF else value).numpy(force=True) for name, value in fields.items()}

    @classmethod
    def of(cls, row: Trial, arrays: dict[str, Array]) -> "AnswerEffects":
        """The answer of a row and its arrays; what was kept in float16 is float32 again."""
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        tensors |= {name: tensors[name].float() for name in HALF}
        record = AttributionRecord(texts=tuple(row["texts"]), **{name: tensors[name] for name in ARRAYS})
        return cls(row["id"], record, tensors["masks"], tensors["run_log_probs"])


class EffectStore:
    """A folder of ablation effects: the rows of each batch as JSON, its arrays as an `.npz` beside it, each hashed.

    Args:
        folder: The store.

    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = user_path(folder)
        self._trials = Trials(self.folder, "--store")

    def begin(self, config: dict[str, Any]) -> list[int]:
        """Start or resume the store; the numbers of the finished batches. A damaged batch is run again.

        Raises:
            UserError: another run writes to it, or it has other settings.

        """
        finished = self._trials.open(config)
        return [number for number in finished if self._intact(number)]

    def close(self) -> None:
        """Let other runs write to it."""
        self._trials.close()

    def write(self, batch: int, rows: Sequence[Trial], effects: Mapping[int, AnswerEffects]) -> None:
        """Write a batch: arrays first, so that a batch whose rows exist is complete.

        Args:
            batch: Its number.
            rows: What identifies each answer, empty ones included.
            effects: The answers that have tokens, by sample number.

        """
        arrays = {f"{sample}/{name}": array for sample, one in effects.items() for name, array in one.arrays().items()}
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        add_zip_hash(content)
        write_bytes(self._file(batch), content.getbuffer())
        self._trials.write(batch, list(rows))

    def _file(self, batch: int) -> Path:
        return self.folder / f"{batch:06d}.npz"

    def _intact(self, batch: int) -> bool:
        try:
            with self._file(batch).open("rb") as file:
                return check_zip_hash(file)
        except (OSError, ValueError):
            return False

    def settings(self) -> dict[str, Any]:
        """What the store was made with.

        Raises:
            UserError: there is no store, or its settings are damaged.

        """
        file, make = self.folder / "settings.json", "lightning predict -c configs/attribution/effects.yaml"
        if not file.is_file():
            raise UserError(f"no ablation effects at {self.folder}; make them with: {make}")
        held, _ = read_hashed(file, f"delete {self.folder}, and make it again with: {make}")
        if "ablations" not in held or "answers" not in held:
            raise UserError(f"{self.folder} holds no ablation effects; make them with: {make} --store {self.folder}")
        check_identity(held.get("llm"), f"{file}, llm")
        return held

    def read(self) -> list[AnswerEffects]:
        """All answers that have tokens, in the order of their batches.

        Raises:
            UserError: the store is not complete, or a batch is damaged.

        """
        answers, rows = self.settings()["answers"], self._trials.read()
        again = f"go on with the `lightning predict` command that made {self.folder}"
        if len(rows) != answers:
            raise UserError(f"{self.folder}: {len(rows)} of {answers} answers are finished; {again}")
        found = list[AnswerEffects]()
        by_batch = dict[int, list[Trial]]()
        for row in rows:
            by_batch.setdefault(row["batch"], []).append(row)
        for batch, group in by_batch.items():
            if not self._intact(batch):
                raise UserError(f"{self._file(batch)} is damaged or missing; {again}")
            found += _read(self._file(batch), group)
        return found

    def fingerprint(self) -> str:
        """Hash of what it was made with."""
        return digest({name: value for name, value in self.settings().items() if name != "software"})

    def identity(self) -> LLMIdentity:
        """The LLM whose answers these are."""
        return LLMIdentity(**self.settings()["llm"])


def _read(file: Path, rows: Sequence[Trial]) -> list[AnswerEffects]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            names = (*ARRAYS, "masks", "run_log_probs")
            return [
                AnswerEffects.of(row, {name: arrays[f"{row['sample']}/{name}"] for name in names})
                for row in rows
                if row["tokens"]
            ]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} holds no ablation effects ({error}); make the store again") from error

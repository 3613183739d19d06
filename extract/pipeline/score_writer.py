"""The callback that turns predictions into a score store, on any number of processes."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from extract.errors import UserError
from extract.generation import Decoded
from extract.pipeline.extraction import Extracted, Extraction
from extract.store import (
    FORMAT,
    ScoreStore,
    finished_batches,
    part_file,
    read_manifest,
    read_shard,
    store_card,
    vectors,
    write_manifest,
    write_shard,
)
from extract.tasks import PromptBatch
from extract.utils import command, digest, first_difference, on_rank_zero, sweep, versions, write_bytes

FOLDERS = ("samples", "steps", "parts")


class ScoreWriter(Callback):
    """Write each batch as two shards; resume what was interrupted; sign the manifest at the end.

    Batches carry their own numbers, so Lightning's BasePredictionWriter, which numbers samples by Lightning's own
    sampler, has nothing to add and would warn at every run.

    Args:
        store: The folder (linked from the top-level `store:`).
        argmax: Keep each head's most attended position, so that a step can be drawn again.
        hidden_dtype: Precision of the stored hidden states; float16 halves the store and rounds them.

    """

    def __init__(
        self, store: str = "stores/niah", argmax: bool = True, hidden_dtype: Literal["float32", "float16"] = "float32"
    ) -> None:
        self.store, self.argmax, self.hidden_dtype = Path(store), argmax, hidden_dtype

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the store: rank 0 creates or resumes it, every rank learns which batches are done."""
        if stage != "predict":
            return
        if not isinstance(pl_module, Extraction):
            raise UserError(f"ScoreWriter writes what extract.Extraction predicts, not {type(pl_module).__name__}")
        prompts: Any = trainer.datamodule  # type: ignore[attr-defined]
        config = {
            "llm": pl_module.llm.identity.as_dict(),
            **prompts.describe(),
            **pl_module.describe(),
            "argmax": self.argmax,
            "hidden_dtype": self.hidden_dtype,
        }
        outcome = on_rank_zero(trainer, lambda: self._open(config))
        prompts.skip = frozenset(outcome)
        if len(outcome) == prompts.batches:
            rank_zero_info(f"{self.store}: complete already, nothing to extract")

    def _open(self, config: dict[str, Any]) -> list[int]:
        """Create or resume the store; the numbers of its finished batches."""
        if not (self.store / "manifest.json").exists():
            self._create(config)
            return []
        manifest = read_manifest(self.store)
        _refuse_other(self.store, manifest, config)
        if manifest["complete"]:
            ScoreStore(self.store)  # raises if a shard is damaged
            return [shard["batch"] for shard in manifest["shards"]]
        self._make_folders()
        sweep(self.store)
        finished = sorted(finished_batches(self.store))
        rank_zero_info(f"{self.store}: going on after {len(finished)} finished batches")
        return finished

    def _create(self, config: dict[str, Any]) -> None:
        # Empty folders are what a run leaves that was killed before its manifest: they may be taken over.
        if any(True for folder in FOLDERS for _ in (self.store / folder).glob("*")):
            raise UserError(
                f"{self.store} holds shards but no manifest, so nothing says what they are; delete that folder, "
                "or choose another --store"
            )
        self._make_folders()
        header = {"format": FORMAT, "complete": False, "command": command(), "versions": versions()}
        write_manifest(self.store, {**header, **config})

    def _make_folders(self) -> None:
        try:
            for folder in FOLDERS:
                (self.store / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write the store {self.store}: {error.strerror}; choose another --store") from error

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: PromptBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Two shards, then the record that the batch is whole."""
        del trainer, pl_module, batch_idx, dataloader_idx
        extracted: Extracted = outputs
        if extracted.decoded is None:
            return
        name = f"{batch.number:06d}.arrow"
        part = {
            "batch": batch.number,
            "samples": write_shard(self.store / "samples" / name, samples_table(batch, extracted, extracted.decoded)),
            "steps": write_shard(self.store / "steps" / name, self._steps_table(batch, extracted.decoded)),
        }
        write_bytes(part_file(self.store, batch.number), json.dumps(part).encode())

    def _steps_table(self, batch: PromptBatch, rows: Decoded) -> pa.Table:
        lengths = np.asarray(rows.lengths)
        real = np.arange(rows.tokens.shape[1])[None] < lengths[:, None]
        index = np.asarray([sample.index for sample in batch.samples])
        columns = {
            "sample": pa.array(np.repeat(index, lengths)),
            "step": pa.array(np.nonzero(real)[1].astype(np.int32)),
            "token": pa.array(rows.tokens.numpy()[real].astype(np.int32)),
            "hidden": vectors(rows.hidden.numpy()[real].astype(self.hidden_dtype)),
            "copy_paste": vectors(rows.copy_paste.numpy()[real].astype(np.uint8)),
            "reasoning": vectors(rows.reasoning.numpy()[real]),
        }
        if self.argmax:
            columns["argmax"] = vectors(rows.argmax.numpy()[real].astype(np.int32))
        return pa.table(columns)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for all processes, then count the batches and sign the manifest."""
        del pl_module
        try:
            trainer.strategy.barrier("score store")
        except RuntimeError as error:
            raise UserError(f"another process failed; run the same command again to go on ({error})") from error
        prompts: Any = trainer.datamodule  # type: ignore[attr-defined]
        on_rank_zero(trainer, lambda: self._complete(prompts.batches))

    def _complete(self, batches: int) -> None:
        manifest = read_manifest(self.store)
        if manifest["complete"]:
            return
        parts = finished_batches(self.store)
        if len(parts) != batches:
            raise UserError(
                f"score store {self.store}: {batches - len(parts)} of {batches} batches are missing; "
                f"run again: {manifest['command']}"
            )
        shards = [parts[number] for number in sorted(parts)]
        hashes = [shard[table]["sha256"] for shard in shards for table in ("samples", "steps")]
        counts = {table: sum(shard[table]["rows"] for shard in shards) for table in ("samples", "steps")}
        unscored = self._unscored(shards)
        content = {"fingerprint": digest(hashes), **counts, "unscored_samples": unscored, "shards": shards}
        whole = {**manifest, "complete": True, **content}
        write_bytes(self.store / "README.md", store_card(whole).encode())
        write_manifest(self.store, whole)
        shutil.rmtree(self.store / "parts", ignore_errors=True)
        rank_zero_info(f"{self.store}: {counts['steps']} rows of {counts['samples']} samples")
        if unscored:
            rank_zero_info(
                f"{self.store}: {unscored} samples have no reasoning score: all their evidence lies in the first or "
                "last tokens that Eq. 2 leaves out (model.sink, model.local), or they show none"
            )

    def _unscored(self, shards: list[dict[str, Any]]) -> int:
        """Samples without an Eq. 2 score at any step."""
        tables = (read_shard(self.store / shard["samples"]["file"]) for shard in shards)
        return sum(int((t["unscored"].to_numpy() == t["steps"].to_numpy()).sum()) for t in tables)


def samples_table(batch: PromptBatch, extracted: Extracted, decoded: Decoded) -> pa.Table:
    """One row a sample: prompt, evidence, task fields, answer, metrics, and the steps without any Eq. 2 score."""
    missing = decoded.reasoning.isnan().all(dim=2).tolist()
    unscored = [sum(row[:length]) for row, length in zip(missing, decoded.lengths, strict=True)]
    rows = zip(batch.samples, extracted.answers, extracted.metrics, decoded.lengths, unscored, strict=True)
    return pa.Table.from_pylist(
        [
            {
                "sample": sample.index,
                "id": sample.id,
                "prompt": sample.ids,
                "evidence": [list(span) for span in sample.evidence],
                "question": sample.question,
                "gold": sample.gold,
                **sample.fields,
                "answer": answer,
                "steps": steps,
                "unscored": without,
                **metrics,
            }
            for sample, answer, metrics, steps, without in rows
        ]
    )


def _refuse_other(store: Path, manifest: dict[str, Any], config: dict[str, Any]) -> None:
    """A store goes on only with the settings that began it."""
    for key, value in json.loads(json.dumps(config)).items():
        if manifest.get(key) != value:
            raise UserError(
                f"score store {store} was begun with another {key} ({first_difference(manifest.get(key), value)}); "
                "choose another --store, or delete that folder"
            )

"""The callback that turns predictions into a score store, on any number of processes."""

import json
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from extract.errors import UserError
from extract.pipeline.batch_tables import samples_table, steps_table
from extract.pipeline.extraction import Extracted, Extraction
from extract.store import (
    FORMAT,
    TABLES,
    ScoreStore,
    content_record,
    finished_batches,
    read_manifest,
    read_shard,
    remove_parts,
    store_card,
    summarise,
    summary_rows,
    write_manifest,
    write_part,
    write_shard,
)
from extract.tasks import PromptBatch
from extract.utils import (
    FolderLock,
    check_numbers,
    command,
    first_difference,
    on_rank_zero,
    remove_temporary_files,
    software,
    user_path,
    versions,
    write_card,
    written_by,
)

FOLDERS = (*TABLES, "parts")


class ScoreWriter(Callback):
    """Write a score store: each batch as two shards, the signed manifest at the end; an interrupted run is resumed.

    Batches carry their own numbers. Lightning's BasePredictionWriter, which numbers samples by Lightning's own
    sampler, would add nothing and warn at every run.

    Args:
        store: The folder (linked from the top-level `store:`).
        argmax: Keep each head's most attended position, so that the report can show it.
        hidden_dtype: Precision of the stored hidden states; float16 halves the store and rounds them.

    """

    def __init__(
        self, store: str = "stores/niah", argmax: bool = True, hidden_dtype: Literal["float32", "float16"] = "float32"
    ) -> None:
        self.store, self.argmax, self.hidden_dtype = user_path(store), argmax, hidden_dtype
        self._folders = [self.store / folder for folder in FOLDERS]
        self._lock = FolderLock(self.store, "--store")
        self._finished: frozenset[int] = frozenset()
        self._created = self._made_folder = False
        self._written_by = written_by({"software": software()})

    def finished_batches(self) -> frozenset[int]:
        """Numbers of the batches that an earlier run finished, known after `setup`; the data module skips them."""
        return self._finished

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the store: rank 0 creates or resumes it, every rank learns which batches are finished."""
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
        self._finished = frozenset(on_rank_zero(trainer, lambda: self._open(config)))
        if len(self._finished) == prompts.batches:
            rank_zero_info(f"{self.store}: complete already (by {self._written_by}), nothing to extract")

    def _open(self, config: dict[str, Any]) -> list[int]:
        """Create or resume the store; the numbers of its finished batches."""
        manifest = self._manifest()
        if manifest is None or not manifest["complete"]:
            self._made_folder = not self.store.exists()
            self._make_folders(self.store)
            self._lock.acquire()
            manifest = self._manifest()  # as the run left it that had the lock until now
        if manifest is None:
            self._create(config)
            return []
        finished = [] if manifest["complete"] else sorted(finished_batches(self.store))
        if not manifest["complete"] and not finished:
            self._begin(config)  # nothing was written with the settings that the manifest names
            return []
        _refuse_other(self.store, manifest, config)
        if manifest["complete"]:
            ScoreStore(self.store)  # raises if a shard is damaged
            self._written_by = written_by(manifest)
            return [shard["batch"] for shard in manifest["shards"]]
        if line := check_numbers(manifest, f"score store {self.store}"):
            rank_zero_info(line)
        self._make_folders(*self._folders)
        remove_temporary_files(self.store, *self._folders, former=True)
        rank_zero_info(f"{self.store}: resuming after {len(finished)} finished batches")
        return finished

    def _manifest(self) -> dict[str, Any] | None:
        return read_manifest(self.store) if (self.store / "manifest.json").exists() else None

    def _create(self, config: dict[str, Any]) -> None:
        # Empty folders are what a run leaves that was killed before its manifest: they may be taken over.
        if any(True for folder in self._folders for _ in folder.glob("*")):
            raise UserError(
                f"{self.store} holds shards but no manifest that describes them; delete that folder, "
                "or choose another --store"
            )
        self._created = True
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self._make_folders(*self._folders)
        remove_temporary_files(self.store, *self._folders, former=True)
        header = {
            "format": FORMAT,
            "complete": False,
            "command": command(),
            "versions": versions(),
            "software": software(),
        }
        write_manifest(self.store, {**header, **config})

    def _make_folders(self, *folders: Path) -> None:
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
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
        """Write two shards, then the file that marks the batch as finished."""
        del trainer, pl_module, batch_idx, dataloader_idx
        extracted: Extracted = outputs
        if extracted.decoded is None:
            return
        name = f"{batch.number:06d}.arrow"
        part = {
            "batch": batch.number,
            "samples": write_shard(self.store / "samples" / name, samples_table(batch, extracted, extracted.decoded)),
            "steps": write_shard(
                self.store / "steps" / name, steps_table(batch, extracted.decoded, self.argmax, self.hidden_dtype)
            ),
        }
        write_part(self.store, part)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for all processes, then count the batches and sign the manifest."""
        assert isinstance(pl_module, Extraction)
        try:
            trainer.strategy.barrier("score store")
        except RuntimeError as error:
            raise UserError(f"another process failed; run the same command again to resume ({error})") from error
        prompts: Any = trainer.datamodule  # type: ignore[attr-defined]
        forced = prompts.task.sample(prompts.task.order()[0]).forced is not None
        ends = None if forced else pl_module.llm.end_tokens
        on_rank_zero(trainer, lambda: self._complete(prompts.batches, ends))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let other runs write to the store."""
        del trainer, pl_module, stage
        self._lock.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same where the run failed or was stopped; a new store without a batch goes, too."""
        del exception
        if isinstance(pl_module, Extraction):
            pl_module.teardown("predict")  # Lightning does not where a run fails
        empty = self._created and trainer.world_size == 1 and not any(self.store.glob("*/*"))
        if empty:
            (self.store / "manifest.json").unlink(missing_ok=True)
            for folder in self._folders:
                folder.rmdir()
        self._lock.release()
        if empty and self._made_folder:
            with suppress(OSError):  # something else has come into it
                self.store.rmdir()

    def _complete(self, batches: int, ends: Collection[int] | None) -> None:
        manifest = read_manifest(self.store)
        if not manifest["complete"]:
            manifest = self._signed(manifest, batches, ends)
        rank_zero_info(f"{self.store}: {manifest['steps']} rows of {manifest['samples']} samples")
        # From the finished store's shards, so that resumed runs and several processes have the same.
        for name, text in summary_rows(manifest.get("summary") or summarise(self.store, manifest["shards"], ends)):
            rank_zero_info(f"  {name}: {text}")
        if unscored := manifest.get("unscored_samples"):
            rank_zero_info(
                f"{self.store}: {unscored} samples have no reasoning score: all their evidence is in the first or "
                "last tokens that Eq. 2 leaves out (model.sink, model.local), or their prompts have none"
            )

    def _signed(self, manifest: dict[str, Any], batches: int, ends: Collection[int] | None) -> dict[str, Any]:
        """Count the batches, summarise them, write card and manifest."""
        parts = finished_batches(self.store)
        if len(parts) != batches:
            raise UserError(
                f"score store {self.store}: {batches - len(parts)} of {batches} batches are missing; "
                f"run again: {manifest['command']}"
            )
        shards = [parts[number] for number in sorted(parts)]
        content = {
            **content_record(shards),
            "unscored_samples": self._unscored(shards),
            "summary": summarise(self.store, shards, ends),
            "shards": shards,
        }
        finished = {**manifest, "complete": True, **content}
        if line := write_card(self.store, store_card(finished)):
            rank_zero_info(line)
        write_manifest(self.store, finished)
        remove_parts(self.store)
        return finished

    def _unscored(self, shards: list[dict[str, Any]]) -> int:
        """Samples without an Eq. 2 score at any step."""
        tables = (read_shard(self.store / shard["samples"]["file"]) for shard in shards)
        return sum(int((t["unscored"].to_numpy() == t["steps"].to_numpy()).sum()) for t in tables)


def _refuse_other(store: Path, manifest: dict[str, Any], config: dict[str, Any]) -> None:
    """A store is resumed only with the settings that began it."""
    if "config" not in manifest["llm"]:
        raise UserError(
            f"score store {store} was begun by an earlier version, which recorded the model's weights but not its "
            "config and tokenizer: it can be read, but not continued; choose another --store"
        )
    settings = {"share": "1/1", **json.loads(json.dumps(config))}  # only a share of the batches is mentioned
    begun = {"contribution": False, "share": "1/1", **manifest}  # earlier versions had no contributions
    if difference := first_difference({key: begun.get(key) for key in settings}, settings):
        raise UserError(
            f"score store {store} was begun with other settings ({difference}); choose another --store, or delete "
            "that folder"
        )

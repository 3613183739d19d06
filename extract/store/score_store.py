"""The score store: a folder of Arrow shards and a manifest of the settings that made them."""

import functools
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.scores import ExcludedKeys
from extract.store.arrow_shards import OPTIONAL, check_columns, column_matrix, read_shard
from extract.store.manifest import TABLES, read_manifest
from extract.store.sample_ids import sample_names
from extract.store.sample_steps import SampleIndex, Steps
from extract.store.verification import Verify, damaged_shards
from extract.utils import user_path

if TYPE_CHECKING:
    import datasets


SCORES = ("copy_paste", "reasoning", "contribution", "argmax")
"""Columns of one value a head."""
REQUEST = {"contribution": "extract into another folder with --model.init_args.contribution true"}
"""How to get a column that extraction writes on request."""


class ScoreStore:
    """Retrieval scores and hidden states of a finished extraction, read through memory maps.

    Table `steps`, one row a generated token: sample, step, token, hidden[hidden_size], copy_paste[heads] (Eq. 1),
    reasoning[heads] (Eq. 2), contribution[heads] (logit contribution of the evidence, if computed), argmax[heads] (most
    attended position, if kept). Table `samples`, one row a prompt:
    sample, prompt tokens, evidence spans, task fields, answer, metrics. Heads are numbered layer-major:
    `layer * heads_per_layer + index`.

    Args:
        path: The folder.
        verify: Compare every shard with its hash first (about 1.6 GiB/s a core). One that was compared before and has
            kept size, times and inode since is not read again, unless this is "always".
        task: Config that makes such a store (`configs/extract/….yaml`), for the message that there is none.

    Attributes:
        identity: The LLM's name, weights hash and shape.
        heads: Number of heads of all layers.
        hidden_size: Width of the final hidden state.
        fingerprint: Hash of all shards.
        manifest: Every setting, versions, and the shards' hashes.

    Raises:
        UserError: no store there, an unfinished one, or one that was damaged or edited.

    """

    def __init__(self, path: str | Path, verify: Verify = True, task: str = "niah") -> None:
        self.path = user_path(path)
        if not (self.path / "manifest.json").is_file():
            raise UserError(
                f"no score store at {path}; make it with: "
                f"lightning predict -c configs/extract/{task}.yaml --store {path}"
            )
        self.manifest = read_manifest(self.path)
        if not self.manifest["complete"]:
            raise UserError(f"score store {path} is incomplete; finish it with: {self.manifest['command']}")
        self._verify(verify)
        self.identity = LLMIdentity(**self.manifest["llm"])
        self.heads = self.identity.layers * self.identity.heads
        self.hidden_size = self.identity.hidden_size
        self.fingerprint: str = self.manifest["fingerprint"]
        self._tables: dict[str, list[pa.Table]] = {}
        self._opened: dict[tuple[str, int], pa.Table] = {}

    @property
    def excluded(self) -> ExcludedKeys | None:
        """Keys that Eq. 2 leaves out of the store's reasoning scores; None where the manifest does not say."""
        held = {field.name: self.manifest[field.name] for field in fields(ExcludedKeys) if field.name in self.manifest}
        return ExcludedKeys(**held) if held else None

    def _verify(self, verify: Verify) -> None:
        entries = [shard[table] for shard in self.manifest["shards"] for table in TABLES]
        for wrong in damaged_shards(self.path, entries, verify, first=True).values():
            raise UserError(f"score store is damaged: {wrong}; delete {self.path} and extract again")

    def tables(self, name: str) -> list[pa.Table]:
        """Shards of `samples` or `steps`, memory-mapped, in batch order."""
        if name not in self._tables:
            self._tables[name] = [self._shard(name, number) for number in range(len(self.manifest["shards"]))]
        return self._tables[name]

    def _shard(self, name: str, number: int) -> pa.Table:
        """One shard of a table, opened once."""
        if name in self._tables:
            return self._tables[name][number]
        if (name, number) not in self._opened:
            file = self.path / self.manifest["shards"][number][name]["file"]
            self._opened[name, number] = self._table(file, name)
        return self._opened[name, number]

    def _table(self, file: Path, name: str) -> pa.Table:
        table = read_shard(file)
        widths = {"hidden": self.hidden_size, **dict.fromkeys(SCORES, self.heads)}
        check_columns(table, name, widths, str(file))
        return table

    def vectors(self, column: str) -> list[NDArray[Any]]:
        """A vector column of `steps`, such as `hidden`: one array [rows, size] for each shard, without a copy.

        Raises:
            UserError: the store has no such column; extraction writes some on request alone.

        """
        if any(column not in table.column_names for table in self.tables("steps")):
            remedy = REQUEST.get(column, "extract again")
            raise UserError(f"score store {self.path} holds no '{column}' scores; {remedy}")
        return [column_matrix(table[column]) for table in self.tables("steps")]

    def scalars(self, column: str) -> NDArray[np.int64]:
        """A number column of `steps`, such as `token`: an array [rows] of all shards."""
        return np.concatenate([table[column].to_numpy() for table in self.tables("steps")])

    def samples(self) -> pa.Table:
        """The whole `samples` table; a metric that an early shard lacks is null there."""
        return pa.concat_tables(self.tables("samples"), promote_options="default")

    def sample_names(self, records: bool = False) -> dict[int, frozenset[str]]:
        """By sample number, all names by which a sample may be known: see `extract.store.sample_names`.

        Args:
            records: Include its name in its source, by which early stores and probes know it.

        """
        table = self.samples()
        columns = [name for name in ("sample", "id", "question", "gold", "record") if name in table.column_names]
        found = {}
        for row in table.select(columns).to_pylist():
            names = sample_names(row["id"], row.get("question"), row.get("gold"))
            found[row["sample"]] = names | {row["record"]} if records and "record" in row else names
        return found

    @functools.cached_property
    def _index(self) -> SampleIndex:
        return SampleIndex([table["sample"].to_numpy() for table in self.tables("samples")])

    def steps(self, sample: int) -> Steps:
        """Tokens, hidden states and scores of one sample, by its number.

        The first call reads the sample numbers of the `samples` table; each call opens the sample's shard alone: its
        time does not grow with the store.

        Raises:
            UserError: the store holds no such sample.

        """
        if (place := self._index.find(sample)) is None:
            raise UserError(f"score store {self.path} holds no sample {sample}")
        samples, steps = (self._shard(name, place[0]) for name in TABLES)
        rows = np.flatnonzero(steps["sample"].to_numpy() == sample)
        part = steps.slice(int(rows[0]) if len(rows) else 0, len(rows))  # a sample's rows are adjacent
        shape = (len(rows), self.identity.layers, self.identity.heads)
        optional = {
            name: column_matrix(part[name]).reshape(shape) if name in part.column_names else None for name in OPTIONAL
        }
        return Steps(
            sample=samples.slice(place[1], 1).to_pylist()[0],
            tokens=part["token"].to_numpy(),
            hidden=column_matrix(part["hidden"]),
            copy_paste=column_matrix(part["copy_paste"]).reshape(shape) > 0,
            reasoning=column_matrix(part["reasoning"]).reshape(shape),
            **optional,
        )

    def push_to_hub(self, repo: str, private: bool = False) -> str:
        """Upload the store with its card as a dataset of the Hugging Face hub.

        Args:
            repo: Repository, such as `user/scores`.
            private: Whether a new repository is private.

        Returns:
            The address of the upload.

        """
        from huggingface_hub import HfApi

        api = HfApi()
        name = str(api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True).repo_id)
        return str(api.upload_folder(folder_path=self.path, repo_id=name, repo_type="dataset", ignore_patterns=[".*"]))

    def dataset(self, name: str) -> "datasets.Dataset":
        """`samples` or `steps` as a Hugging Face dataset on the same files, with the column `store`.

        Sample numbers begin at 0 in every store: in several stores' rows, `store` and `sample` together name a sample.
        """
        import datasets

        self.tables(name)  # refuses shards that would take more memory than their files
        files = [str(self.path / shard[name]["file"]) for shard in self.manifest["shards"]]
        rows = datasets.concatenate_datasets([datasets.Dataset.from_file(file) for file in files])
        key = self.fingerprint[:12]
        return rows.add_column("store", [key] * len(rows), new_fingerprint=f"{key}-{name}")

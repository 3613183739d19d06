"""The score store: a folder of Arrow shards and a manifest that says what made them."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.shards import SUFFIX, check_shard, matrix, read_shard, write_bytes
from extract.steps import Steps

if TYPE_CHECKING:
    import datasets

FORMAT = 2
TABLES = ("samples", "steps")


def digest(value: Any) -> str:
    """sha256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a store folder, checked against its own hash.

    Raises:
        UserError: it is no JSON, of another format, or was edited.

    """
    file = path / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(file.read_text())
        claimed = manifest.pop("sha256")
        known = manifest["format"] == FORMAT
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not a manifest of a score store; extract into another folder") from error
    if not known:
        raise UserError(f"{file} has format {manifest['format']}; this version reads {FORMAT}: extract again")
    if claimed != digest(manifest):
        raise UserError(f"{file} was edited since it was written: its hash does not match; extract again")
    return manifest


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest with its own hash."""
    signed = {**manifest, "sha256": digest(manifest)}
    write_bytes(path / "manifest.json", (json.dumps(signed, indent=1, ensure_ascii=False) + "\n").encode())


def part_file(path: Path, batch: int) -> Path:
    """The record that a batch is whole, written after both of its shards."""
    return path / "parts" / f"{batch:06d}.json"


def finished_batches(path: Path) -> dict[int, dict[str, Any]]:
    """Manifest entries of the batches that an interrupted run finished; damaged ones are left out."""
    finished = {}
    for file in sorted((path / "parts").glob("*.json")):
        try:
            part = json.loads(file.read_text())
            whole = not any(check_shard(path, part[table]) for table in TABLES)
        except (ValueError, KeyError, TypeError):
            continue
        if whole:
            finished[int(part["batch"])] = part
    return finished


def sweep(path: Path) -> None:
    """Remove temporary files that a killed run left."""
    for file in path.glob(f"**/*{SUFFIX}"):
        file.unlink(missing_ok=True)


class ScoreStore:
    """A complete score store, read through memory maps.

    `steps` rows: sample, step, token, hidden[hidden_size], copy_paste[heads] (Eq. 1), reasoning[heads] (Eq. 2),
    argmax[heads] (most attended position, if kept). `samples` rows: sample, prompt tokens, evidence spans, task
    fields, answer, metrics. Heads are layer-major: `layer * heads_per_layer + index`.

    Args:
        path: The folder.
        verify: Compare every shard with its hash first (about 1.6 GiB/s).
        task: Name of the config that would make such a store, for the message that there is none.

    Raises:
        UserError: no store there, an unfinished one, or one that was damaged or edited.

    """

    def __init__(self, path: str | Path, verify: bool = True, task: str = "niah") -> None:
        self.path = Path(path)
        if not (self.path / "manifest.json").is_file():
            raise UserError(
                f"no score store at {path}; make it with: "
                f"lightning predict -c configs/extract/{task}.yaml --store {path}"
            )
        self.manifest = read_manifest(self.path)
        if not self.manifest["complete"]:
            raise UserError(f"score store {path} is incomplete; finish it with: {self.manifest['command']}")
        if verify:
            self._verify()
        self.identity = LLMIdentity(**self.manifest["llm"])
        self.heads = self.identity.layers * self.identity.heads
        self.hidden_size = self.identity.hidden_size
        self.fingerprint: str = self.manifest["fingerprint"]
        self._tables: dict[str, list[pa.Table]] = {}

    def _verify(self) -> None:
        for shard in self.manifest["shards"]:
            for table in TABLES:
                if wrong := check_shard(self.path, shard[table]):
                    raise UserError(f"score store is damaged: {wrong}; delete {self.path} and extract again")

    def tables(self, name: str) -> list[pa.Table]:
        """The memory-mapped shards of `samples` or `steps`, in batch order."""
        if name not in self._tables:
            files = (self.path / shard[name]["file"] for shard in self.manifest["shards"])
            self._tables[name] = [read_shard(file) for file in files]
        return self._tables[name]

    def vectors(self, column: str) -> list[NDArray[Any]]:
        """A fixed-size-list column of `steps`: one zero-copy [rows, size] array for each shard."""
        return [matrix(table[column]) for table in self.tables("steps")]

    def scalars(self, column: str) -> NDArray[np.int64]:
        """A number column of `steps`, all shards joined."""
        return np.concatenate([table[column].to_numpy() for table in self.tables("steps")])

    def samples(self) -> pa.Table:
        """The whole `samples` table."""
        return pa.concat_tables(self.tables("samples"))

    def steps(self, sample: int) -> Steps:
        """All steps of the sample of that number.

        Raises:
            UserError: the store holds no such sample.

        """
        identity = self.identity
        for samples, steps in zip(self.tables("samples"), self.tables("steps"), strict=True):
            held = np.flatnonzero(samples["sample"].to_numpy() == sample)
            rows = np.flatnonzero(steps["sample"].to_numpy() == sample)
            if not len(held):
                continue
            shape = (len(rows), identity.layers, identity.heads)
            part = steps.slice(int(rows[0]) if len(rows) else 0, len(rows))  # a sample's rows lie together
            looks = matrix(part["argmax"]).reshape(shape) if "argmax" in part.column_names else None
            return Steps(
                sample=samples.slice(int(held[0]), 1).to_pylist()[0],
                tokens=part["token"].to_numpy(),
                hidden=matrix(part["hidden"]),
                copy_paste=matrix(part["copy_paste"]).reshape(shape) > 0,
                reasoning=matrix(part["reasoning"]).reshape(shape),
                looks=looks,
            )
        raise UserError(f"score store {self.path} holds no sample {sample}")

    def push_to_hub(self, repo: str, private: bool = False) -> str:
        """Upload the store with its card as a dataset of the Hugging Face hub; its address there.

        Args:
            repo: Name there, such as `user/scores`.
            private: Whether a new repository is.

        """
        from huggingface_hub import HfApi

        api = HfApi()
        name = str(api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True).repo_id)
        return str(api.upload_folder(folder_path=self.path, repo_id=name, repo_type="dataset"))

    def dataset(self, name: str) -> "datasets.Dataset":
        """`samples` or `steps` as a Hugging Face dataset on the same files."""
        import datasets

        files = [str(self.path / shard[name]["file"]) for shard in self.manifest["shards"]]
        return datasets.concatenate_datasets([datasets.Dataset.from_file(file) for file in files])

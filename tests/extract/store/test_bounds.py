"""Shards that would unpack to more than their file are refused before that, with one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from extract.errors import UserError
from extract.store import ScoreStore, read_shard
from extract.store.manifest import write_manifest
from extract.utils import digest
from tests.helpers.stores import make_store


def write(path: Path, table: pa.Table, compression: str | None = None) -> Path:
    with pa.ipc.new_stream(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_compressed_shard_is_refused_before_it_is_unpacked(compression: str, tmp_path: Path) -> None:
    """320 MB of zeros in a small file."""
    batch = pa.record_batch({"x": np.zeros(1_000_000)})
    options, file = pa.ipc.IpcWriteOptions(compression=compression), tmp_path / "bomb.arrow"
    with pa.ipc.new_stream(str(file), batch.schema, options=options) as writer:
        for _ in range(40):
            writer.write_batch(batch)
    assert file.stat().st_size < 2_000_000
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(UserError, match="is compressed or has a dictionary"):
        read_shard(file)
    assert pa.default_memory_pool().max_memory() - before < 20_000_000


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "a"]).dictionary_encode(),
        pa.nulls(2),
        pa.ListArray.from_arrays(pa.array([0, 1, 2]), pa.nulls(2)),
        pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int64()), pa.array([1])),
        pa.array([{"a": 1}, {"a": 2}]),
    ],
)
def test_a_column_whose_values_take_no_bytes_is_refused(column: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a dictionary, which no shard|type that no shard|is no shard"):
        read_shard(write(tmp_path / "a.arrow", pa.table({"sample": [0, 1], "x": column})))


def test_more_rows_than_bytes_are_refused(tmp_path: Path) -> None:
    empty = pa.Array.from_buffers(pa.list_(pa.int8(), 0), 10**9, [None], children=[pa.array([], pa.int8())])
    with pytest.raises(UserError, match="states 1,000,000,000 rows in"):
        read_shard(write(tmp_path / "a.arrow", pa.table({"x": empty})))
    assert len(read_shard(write(tmp_path / "b.arrow", pa.table({"x": pa.array([], pa.int8())})))) == 0


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"\xff\xff\xff\xff\xff\xff\xff\x7f"])
def test_what_is_no_stream_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises(UserError, match="no shard of a score store"):
        read_shard(tmp_path / "a.arrow")


def test_offsets_outside_of_a_buffer_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.arrow", pa.table({"x": ["abc"]}))
    before, _, after = file.read_bytes().rpartition(b"\0\0\0\0\x03\0\0\0")
    file.write_bytes(before + b"\0\0\0\0\xff\xff\xff\x7f" + after)
    with pytest.raises(UserError, match="no shard of a score store"):
        read_shard(file)


def test_a_rightly_hashed_store_with_a_compressed_shard_is_refused(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s", shards=1)
    store = ScoreStore(path)
    file = path / "steps" / "000000.arrow"
    table = store.tables("steps")[0]
    content = pa.BufferOutputStream()
    with pa.ipc.new_stream(content, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    file.write_bytes(content.getvalue())
    from extract.store.arrow_shards import _state

    manifest = {**store.manifest, "shards": [{**store.manifest["shards"][0]}]}
    manifest["shards"][0]["steps"] = {**manifest["shards"][0]["steps"], **_state(file)}
    write_manifest(path, {**manifest, "fingerprint": digest(manifest["shards"])})
    for read in (lambda one: one.steps(0), lambda one: one.dataset("steps")):
        with pytest.raises(UserError, match="is compressed"):
            read(ScoreStore(path))

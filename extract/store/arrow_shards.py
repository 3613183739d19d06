"""Arrow files that are whole or absent: written aside, synced, renamed, and known by their hash."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from extract.utils import sha256, write_bytes


def write_shard(path: Path, table: pa.Table) -> dict[str, Any]:
    """Write a table as one Arrow stream with one chunk; returns its entry in the manifest."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(1, len(table)))
    write_bytes(path, sink.getvalue())
    return {"file": f"{path.parent.name}/{path.name}", "rows": len(table), **_state(path)}


def _state(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def check_shard(store: Path, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with a shard, if anything: Arrow itself reads a flipped byte or a lost tail without a word."""
    path = store / entry["file"]
    if not path.is_file():
        return f"{path} is missing"
    if path.stat().st_size != entry["bytes"]:
        return f"{path} has {path.stat().st_size} bytes instead of {entry['bytes']}"
    if sha256(path) != entry["sha256"]:
        return f"{path} does not match its sha256"
    return None


def read_shard(path: Path) -> pa.Table:
    """The shard's table, memory-mapped."""
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def vectors(values: NDArray[Any]) -> pa.Array:
    """A 2-D array as an Arrow column of fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    """The inverse of `vectors`, without copying: the rows stay in the memory map."""
    if column.num_chunks == 0:
        return np.empty((0, column.type.list_size))
    width = column.type.list_size
    (chunk,) = column.chunks
    return np.asarray(chunk.flatten().to_numpy(zero_copy_only=True)).reshape(-1, width)

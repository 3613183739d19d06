"""Arrow shards of a store: written atomically, read through memory maps."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from extract.store.arrow_messages import open_bounded
from extract.utils import sha256, write_bytes


def write_shard(path: Path, table: pa.Table) -> dict[str, Any]:
    """Write a table as one Arrow stream with one chunk.

    Returns:
        Its entry in the manifest: file, rows, bytes, sha256.

    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(1, len(table)))
    write_bytes(path, sink.getvalue())
    return {"file": f"{path.parent.name}/{path.name}", "rows": len(table), **_state(path)}


def _state(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def read_shard(path: Path) -> pa.Table:
    """The shard's table, memory-mapped.

    Raises:
        UserError: it is no Arrow stream, or one that would take more memory than its file (see `open_bounded`).

    """
    return open_bounded(path)


def vector_column(values: NDArray[Any]) -> pa.Array:
    """Arrow column of fixed-size lists, one a row of a 2-D array.

    >>> vector_column(np.eye(2, dtype=np.int8)).to_pylist()
    [[1, 0], [0, 1]]

    """
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def column_matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    """2-D array of a column of fixed-size lists, without a copy: its rows stay in the memory map.

    >>> column_matrix(pa.chunked_array([vector_column(np.eye(2, dtype=np.int8))]))
    array([[1, 0],
           [0, 1]], dtype=int8)

    """
    if column.num_chunks == 0:
        return np.empty((0, column.type.list_size))
    width = column.type.list_size
    (chunk,) = column.chunks
    return np.asarray(chunk.flatten().to_numpy(zero_copy_only=True)).reshape(-1, width)

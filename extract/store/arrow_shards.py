"""Arrow shards of a store: written atomically, read through memory maps."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from extract.errors import UserError
from extract.store.arrow_messages import open_bounded
from extract.utils import sha256, write_bytes

COLUMNS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "samples": {"sample": pa.types.is_integer, "id": pa.types.is_string},
    "steps": {
        **dict.fromkeys(("sample", "step", "token"), pa.types.is_integer),
        **dict.fromkeys(("hidden", "copy_paste", "reasoning", "contribution", "argmax"), pa.types.is_fixed_size_list),
    },
}
"""Columns that are read, and whether a type is theirs."""
OPTIONAL = ("contribution", "argmax")
"""Those that a store may lack."""


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


def check_columns(table: pa.Table, name: str, widths: Mapping[str, int], where: str) -> None:
    """Refuse a shard without the columns of its table, or with one of another type or width.

    Args:
        table: The shard.
        name: `samples` or `steps`.
        widths: Of vector columns; those of `OPTIONAL` may be missing.
        where: Its file, for the message.

    Raises:
        UserError: naming the column.

    """
    types = {field.name: field.type for field in table.schema}
    for column, is_kind in COLUMNS[name].items():
        if column in types and not is_kind(types[column]):
            raise UserError(f"{where}: column '{column}' has the type {types[column]}; extract again")
        if column not in types and column not in OPTIONAL:
            raise UserError(f"{where}: column '{column}' is missing; extract again")
    for column in (column for column in widths if column in types) if name == "steps" else ():
        if types[column].list_size != widths[column]:
            raise UserError(
                f"{where}: column '{column}' has {types[column].list_size} values a row, but the manifest's LLM "
                f"{widths[column]}; extract again"
            )
    if nulls := [column for column in COLUMNS[name] if column in types and table[column].null_count]:
        raise UserError(f"{where}: column '{nulls[0]}' lacks values; extract again")


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

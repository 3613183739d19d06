"""Bounds on an Arrow stream before its content is read: what it unpacks to is no larger than the file."""

import struct
from pathlib import Path

import pyarrow as pa

from extract.errors import UserError

HEADER, COMPRESSION = 2, 3
"""Places of a message's header and of a record batch's compression in their flatbuffer tables (Arrow's format)."""


def open_bounded(path: Path) -> pa.Table:
    """Table of an Arrow stream, memory-mapped.

    Raises:
        UserError: it is no Arrow stream, or one that would unpack to more than its file: compressed, with a dictionary,
            or with values that take no bytes.

    """
    try:
        for message in pa.ipc.MessageReader.open_stream(pa.memory_map(str(path))):
            if message.type == "dictionary" or (message.type == "record batch" and _compressed(message.metadata)):
                raise UserError(f"{path} is compressed or has a dictionary, which no shard of a score store is")
        table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
        table.validate(full=True)  # offsets beyond a buffer would be read as they are
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is no shard of a score store ({' '.join(str(error).split())[:160]})") from error
    if other := [field.name for field in table.schema if not _plain(field.type)]:
        raise UserError(f"{path}: column {other[0]!r} is of a type that no shard of a score store has")
    if len(table) > path.stat().st_size:
        raise UserError(f"{path} states {len(table):,} rows in {path.stat().st_size:,} bytes")
    return table


def _compressed(metadata: pa.Buffer) -> bool:
    """Whether the record batch of a message has the field for compression."""
    content = metadata.to_pybytes()
    (root,) = struct.unpack_from("<I", content)
    header = _field(content, root, HEADER)
    assert header is not None  # pyarrow has checked the message
    (batch,) = struct.unpack_from("<I", content, header)
    return _field(content, header + batch, COMPRESSION) is not None


def _field(content: bytes, table: int, number: int) -> int | None:
    """Place of a field of a flatbuffer table; None where it is left out."""
    (back,) = struct.unpack_from("<i", content, table)
    (size,) = struct.unpack_from("<H", content, table - back)
    entry = 4 + 2 * number
    (offset,) = struct.unpack_from("<H", content, table - back + entry) if entry < size else (0,)
    return table + offset if offset else None


def _plain(kind: pa.DataType) -> bool:
    """Whether each value takes bytes of its own: numbers, text, and lists of these."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _plain(kind.value_type)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(text or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))

"""Data of the page: gzipped, base64-coded blobs of JSON and arrays, which the browser inflates on demand."""

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 8


def blob(data: bytes) -> str:
    """Base64 of gzip; equal data give equal blobs.

    >>> gzip.decompress(base64.b64decode(blob(b"text")))
    b'text'

    """
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def pack(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Blob of a JSON header and typed arrays, little-endian.

    Layout: length of the JSON in bytes (uint32), the JSON padded with spaces, then the arrays, each aligned to 8
    bytes, as JavaScript's typed arrays require. `arrays` in the header gives the `type` (uint8, uint16, …) of each,
    its `start` in bytes after the JSON, and its `length` in items.
    """
    entries, body = {}, b""
    for name, values in arrays.items():
        body += b"\0" * (-len(body) % ALIGNMENT)
        entries[name] = {"type": values.dtype.name, "start": len(body), "length": values.size}
        body += np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).tobytes()
    text = json.dumps({**header, "arrays": entries}, ensure_ascii=False).encode()
    text += b" " * (-(4 + len(text)) % ALIGNMENT)
    return blob(len(text).to_bytes(4, "little") + text + body)


def quantise(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scores in [0, 1] as bytes: round(254 · score), 255 for NaN.

    >>> quantise(np.array([0.0, 0.5, 1.0, np.nan])).tolist()
    [0, 127, 254, 255]

    """
    known = np.isfinite(values)
    scaled = np.where(known, np.clip(np.nan_to_num(values), 0, 1) * 254, 255)
    return np.round(scaled).astype(np.uint8)

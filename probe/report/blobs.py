"""Arrays and JSON in the page: one gzipped, base64-coded blob each, which the browser inflates when it is needed."""

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 8


def blob(data: bytes) -> str:
    """Gzipped and base64-coded, the same for the same data."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def pack(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """A header and typed arrays: the length of its JSON (uint32), the JSON, and the arrays, each 8-byte aligned.

    The header's `arrays` says of each its `type` (uint8, uint16, …), its `start` in bytes behind the JSON's padded
    end, and its `length` in items. All is little-endian, as browsers on today's machines are.
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
    """Scores of 0 to 1 in steps of 1/254; 255 for none."""
    known = np.isfinite(values)
    scaled = np.where(known, np.clip(np.nan_to_num(values), 0, 1) * 254, 255)
    return np.round(scaled).astype(np.uint8)

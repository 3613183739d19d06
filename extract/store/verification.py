"""Verification of a store's shards: each is hashed once, and again when its size, times or inode change."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from extract.errors import UserError
from extract.utils import Progress, cache_folder, hashed_json, read_hashed, sha256, write_bytes

Verify = bool | Literal["always"]
"""True: hash the shards that changed since they were last hashed; "always": hash all; False: none."""
VERIFY_VARIABLE = "RETRIEVAL_HEADS_VERIFY"
"""Environment variable that makes every verification hash all shards; `--verify` sets it for one command."""
WORTH_BYTES, WORTH_SHARDS = 32 * 2**20, 500
"""From either on, the result of a verification is kept; fewer are hashed in a tenth of a second."""
TASK_BYTES = 16 * 2**20
"""What a thread hashes in one task, at least, where shards are smaller."""
SETTLED = 2.0
"""Seconds after its last change in which a shard is not remembered: file systems give times this coarsely."""

Entry = Mapping[str, Any]
"""A shard in the manifest: file, rows, bytes, sha256."""
State = list[int]
"""Size, time of last content change and last change of any kind in nanoseconds, inode."""


@contextmanager
def always_verified(always: bool = True) -> Iterator[None]:
    """Within the block, and in processes begun in it, every verification hashes all shards."""
    former = os.environ.get(VERIFY_VARIABLE)
    if always:
        os.environ[VERIFY_VARIABLE] = "1"
    try:
        yield
    finally:
        os.environ.pop(VERIFY_VARIABLE, None)
        if former is not None:
            os.environ[VERIFY_VARIABLE] = former


def damaged_shards(store: Path, entries: Sequence[Entry], verify: Verify = True, first: bool = False) -> dict[str, str]:
    """Damage of shards in words, by file; intact ones are left out.

    A flipped byte or a lost tail is read by Arrow itself without an error. What was hashed is remembered in the cache
    folder: as long as size, times and inode of a shard stay, it is not read again. The manifest's hash is what counts:
    a memory of another hash is none.

    Args:
        store: The store's folder.
        entries: Shards as the manifest describes them.
        verify: Which shards are hashed; `--verify` hashes all in any case.
        first: Stop at the first damage.

    """
    always = verify == "always" or os.environ.get(VERIFY_VARIABLE, "0") not in ("", "0")
    if not verify and not always:
        return {}
    states = _states(store, entries)
    damaged = {one["file"]: wrong for one in entries if (wrong := _visible_damage(store, one, states))}
    if first and damaged:
        return damaged
    known = {} if always else _remembered(store)
    unknown = [
        one
        for one in entries
        if one["file"] not in damaged and known.get(one["file"]) != [*states[one["file"]], one["sha256"]]
    ]
    begun = time.time()
    for entry, found in _hashed(store, unknown):
        if found != entry["sha256"]:
            damaged[entry["file"]] = f"{store / entry['file']} does not match its sha256"
            if first:
                return damaged
    if len(unknown) >= WORTH_SHARDS or sum(one["bytes"] for one in unknown) >= WORTH_BYTES:
        settled = (begun - SETTLED) * 1e9
        intact = (one for one in entries if one["file"] not in damaged and max(states[one["file"]][1:3]) < settled)
        _remember(store, {one["file"]: [*states[one["file"]], one["sha256"]] for one in intact})
    return damaged


def _states(store: Path, entries: Iterable[Entry]) -> dict[str, State]:
    """State of each shard that exists: a scan of each folder, which is quicker than a look-up of each path."""
    found = {}
    for folder in {entry["file"].rpartition("/")[0] for entry in entries}:
        with suppress(OSError), os.scandir(store / folder) as files:
            for file in files:
                with suppress(OSError):
                    state = file.stat()
                    name = f"{folder}/{file.name}" if folder else file.name
                    found[name] = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
    return found


def _visible_damage(store: Path, entry: Entry, states: Mapping[str, State]) -> str | None:
    """Damage that is visible without reading a shard."""
    if (state := states.get(entry["file"])) is None:
        return f"{store / entry['file']} is missing"
    if state[0] != entry["bytes"]:
        return f"{store / entry['file']} has {state[0]} bytes instead of {entry['bytes']}"
    return None


def _hashed(store: Path, entries: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    """Shards with their hashes, by a thread for each core; after two seconds with their progress."""
    total = sum(entry["bytes"] for entry in entries)
    size = max(1, min(64, len(entries) * TASK_BYTES // max(total, 1)))  # small shards share a task
    groups = [entries[start : start + size] for start in range(0, len(entries), size)]
    done, pool = 0, ThreadPoolExecutor(os.cpu_count())
    try:
        with Progress(f"verifying {store}", total / 2**20, "MiB") as progress:
            for group, hashes in zip(groups, pool.map(partial(_hashes, store), groups), strict=True):
                yield from zip(group, hashes, strict=True)
                done += sum(entry["bytes"] for entry in group)
                progress.show(done / 2**20)
    finally:
        pool.shutdown(cancel_futures=True)


def _hashes(store: Path, entries: Sequence[Entry]) -> list[str]:
    return [_sha256(store / entry["file"]) for entry in entries]


def _sha256(path: Path) -> str:
    """Hash of a shard; of one that cannot be read, nothing that a manifest holds."""
    try:
        return sha256(path)
    except OSError as error:
        return str(error)


def _memory(store: Path) -> Path:
    """File of the cache folder in which the verified shards of a store are remembered."""
    return cache_folder() / "verified" / f"{hashlib.sha256(bytes(store.resolve())).hexdigest()[:32]}.json"


def _remembered(store: Path) -> dict[str, list[Any]]:
    """State and hash of verified shards, by file; empty where nothing usable is remembered."""
    try:
        shards = read_hashed(_memory(store), "verified again")[0]["shards"]
    except (UserError, KeyError):
        return {}
    return shards if isinstance(shards, dict) else {}


def _remember(store: Path, shards: dict[str, list[Any]]) -> None:
    """Keep states and hashes of verified shards; where the cache folder cannot be written, nothing is kept."""
    file = _memory(store)
    with suppress(OSError, UserError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, hashed_json({"store": str(store.resolve()), "shards": shards}))

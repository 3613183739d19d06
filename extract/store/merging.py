"""Merging of the stores that several machines extracted, each a share of one task's batches."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.store.dataset_card import store_card
from extract.store.manifest import TABLES, content_record, read_manifest, write_manifest
from extract.store.sample_ids import shared_names
from extract.store.score_store import ScoreStore
from extract.store.summary import estimate, summarise
from extract.utils import (
    WorkShare,
    command,
    first_difference,
    remove_temporary_files,
    replacing_folder,
    sha256,
    user_path,
    write_card,
)

RESULTS = ("command", "versions", "software", "share", "merged", "summary", "unscored_samples", "shards", "fingerprint")
"""Fields of a manifest that are no settings: what was found, and what found it."""
REMEDY = "the stores of one task are extracted with data.init_args.share 1/N … N/N"


@dataclass(frozen=True)
class Merged:
    """Outcome of a merge.

    Attributes:
        manifest: Of the merged store.
        linked: Shards that are hard links to those of the sources.
        copied: Shards that were copied, as between file systems.
        existed: Whether the store was there before, and so nothing was done.

    """

    manifest: dict[str, Any]
    linked: int
    copied: int
    existed: bool = False


def merge_stores(sources: Sequence[str | Path], output: str | Path) -> Merged:
    """Join the stores of all shares of a task: the rows and shards of the store that one machine writes.

    The shards are hard links where the file system has them, else copies, compared with their hash. The store is built
    in a temporary folder and renamed: it is there whole or not at all, and the sources are left as they are.

    Args:
        sources: Folders of the complete stores, in any order.
        output: Folder of the new store: absent, empty, or the result of the same merge.

    Raises:
        UserError: the stores are not all shares of one task by one LLM, they share samples, one is damaged, or the
            output cannot be written.

    """
    stores = [ScoreStore(source) for source in sources]
    _refuse_other_settings(stores)
    _refuse_wrong_shares(stores)
    _refuse_shared_samples(stores)
    target = user_path(output)
    manifest, homes = _manifest(stores)
    if (target / "manifest.json").exists():
        return _existing(target, manifest["fingerprint"])
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{output} exists and is no merge of these stores; choose another --output")
    if any(target.resolve().is_relative_to(store.path.resolve()) for store in stores):
        raise UserError(f"{output} is inside one of the stores to merge; choose another --output")
    with _written(target), replacing_folder(target) as folder:
        counts = _place(manifest["shards"], homes, folder)
        manifest["summary"] = _summary(folder, manifest["shards"], stores)
        write_card(folder, store_card(manifest))
        write_manifest(folder, manifest)
    return Merged(manifest, counts[True], counts[False])


def _refuse_other_settings(stores: Sequence[ScoreStore]) -> None:
    """Refuse stores of different LLMs, tasks or settings."""
    first, *others = stores
    if not others:
        raise UserError(f"{first.path} is one store: a merge needs the stores of all shares")
    settings = {name: value for name, value in first.manifest.items() if name not in (*RESULTS, *TABLES)}
    for store in others:
        own = {name: value for name, value in store.manifest.items() if name not in (*RESULTS, *TABLES)}
        revisions = [one.manifest.get("software", {}).get("numbers") for one in (first, store)]
        difference = first_difference({**settings, "numbers": revisions[0]}, {**own, "numbers": revisions[1]})
        if difference:
            raise UserError(f"{first.path} and {store.path} differ in {difference}: they cannot be merged; {REMEDY}")


def _refuse_wrong_shares(stores: Sequence[ScoreStore]) -> None:
    """Refuse stores that are not each share once."""
    shares = [WorkShare.parse(store.manifest.get("share", "1/1"), f"{store.path}: share") for store in stores]
    of = shares[0].of
    for store, share in zip(stores, shares, strict=True):
        if share.of != of or share.of == 1:
            raise UserError(f"{store.path} is share {share} of its task, {stores[0].path} share {shares[0]}; {REMEDY}")
    counts = Counter(share.number for share in shares)
    if repeated := [number for number, times in counts.items() if times > 1]:
        raise UserError(f"share {repeated[0]}/{of} is given {counts[repeated[0]]} times: {REMEDY}")
    if missing := [number for number in range(1, of + 1) if number not in counts]:
        raise UserError(f"share {missing[0]}/{of} is missing: give the stores of all {of} shares")


def _refuse_shared_samples(stores: Sequence[ScoreStore]) -> None:
    """Refuse samples that two stores hold, by number or by content, and batches that two stores hold."""
    numbers, names, batches = dict[int, Path](), dict[str, Path](), dict[int, Path]()
    for store in stores:
        known = store.sample_names()
        own = {shard["batch"] for shard in store.manifest["shards"]}
        if twice := sorted((numbers.keys() & known) | (batches.keys() & own)):
            other = numbers.get(twice[0]) or batches[twice[0]]
            raise UserError(f"{other} and {store.path} both hold sample or batch {twice[0]}; {REMEDY}")
        if shared := shared_names(known.values(), names.keys()):
            raise UserError(f"{names[shared[0]]} and {store.path} both hold sample {shared[0]}; {REMEDY}")
        numbers |= dict.fromkeys(known, store.path)
        names |= dict.fromkeys(set[str]().union(*known.values()), store.path)
        batches |= dict.fromkeys(own, store.path)


def _manifest(stores: Sequence[ScoreStore]) -> tuple[dict[str, Any], dict[int, Path]]:
    """Manifest of the merged store but for its summary, and by batch the folder that holds its shards."""
    homes = {shard["batch"]: store.path for store in stores for shard in store.manifest["shards"]}
    shards = sorted((shard for store in stores for shard in store.manifest["shards"]), key=lambda one: one["batch"])
    first = min(stores, key=lambda store: WorkShare.parse(store.manifest["share"], "share").number)
    merged = [
        {name: store.manifest.get(name) for name in ("share", "fingerprint", "command", "versions")} for store in stores
    ]
    unscored = [store.manifest.get("unscored_samples") for store in stores]
    content = {
        **content_record(shards),
        "unscored_samples": None if None in unscored else sum(filter(None, unscored)),
        "merged": sorted(merged, key=lambda one: str(one["share"])),
        "shards": shards,
    }
    begun = {name: value for name, value in first.manifest.items() if name != "share"}
    return {**begun, "command": command(), **content}, homes


def _existing(target: Path, fingerprint: str) -> Merged:
    """The store that an earlier merge wrote.

    Raises:
        UserError: it is another store, or damaged.

    """
    if read_manifest(target).get("fingerprint") != fingerprint:
        raise UserError(f"{target} holds another store; choose another --output")
    return Merged(ScoreStore(target).manifest, 0, 0, existed=True)


@contextmanager
def _written(target: Path) -> Iterator[None]:
    """Make the parent of the output, without what killed merges left there; a failure to write is one line."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_temporary_files(target.parent)
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the store {target}: {error.strerror or error}; choose another --output"
        ) from error


def _place(shards: Sequence[Mapping[str, Any]], homes: Mapping[int, Path], folder: Path) -> Counter[bool]:
    """Link or copy all shards into a folder; how many were linked (True) and copied (False)."""
    for table in TABLES:
        (folder / table).mkdir()
    return Counter(
        _linked(homes[shard["batch"]] / shard[table]["file"], folder / shard[table]["file"], shard[table]["sha256"])
        for shard in shards
        for table in TABLES
    )


def _linked(source: Path, target: Path, expected: str) -> bool:
    """Link a shard, or copy it where that is not possible; whether it is a link.

    Raises:
        UserError: the copy differs from the shard's hash.

    """
    try:
        os.link(source.resolve(), target)  # a link to a link would break with its folder
    except OSError:  # another file system, one without hard links, or too many of them
        shutil.copyfile(source, target)
        if sha256(target) != expected:
            raise UserError(f"{source}: its copy does not match its sha256; look at both disks") from None
        return False
    return True


def _summary(folder: Path, shards: Sequence[Mapping[str, Any]], stores: Sequence[ScoreStore]) -> dict[str, Any] | None:
    """Summary of all shards; None where a source has none.

    The end tokens, which answers cut at their budget lack, are not in a store: the shares are added up.
    """
    summaries = [store.manifest.get("summary") for store in stores]
    if None in summaries:
        return None
    cut = list[bool]()
    for one in (summary["at_budget"] for summary in summaries if summary is not None):
        count = round(one["n"] * (one["value"] or 0))
        cut += [True] * count + [False] * (one["n"] - count)
    return {**summarise(folder, shards, ends=None), "at_budget": estimate(cut)}

"""Verification of shards: once, and again only for what changed since."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datamodules import ScoreRows
from extract.errors import UserError
from extract.store import ScoreStore, finished_batches, read_manifest, verification, write_manifest, write_part
from tests.conftest import Run
from tests.helpers.stores import make_store

Hashed = Callable[[], list[str]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of 6 shards, all of which are worth remembering, however new."""
    monkeypatch.setenv("RETRIEVAL_HEADS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verification, "WORTH_SHARDS", 1)
    monkeypatch.setattr(verification, "SETTLED", -60.0)
    return make_store(tmp_path / "s", samples=30, shards=3)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Hashed:
    """Names of the shards that were hashed since the last call."""
    names: list[str] = []
    original = verification.sha256

    def spy(path: Path) -> str:
        names.append(f"{path.parent.name}/{path.stem[-1]}")
        return original(path)

    monkeypatch.setattr(verification, "sha256", spy)

    def since() -> list[str]:
        found = sorted(names)
        names.clear()
        return found

    return since


ALL = ["samples/0", "samples/1", "samples/2", "steps/0", "steps/1", "steps/2"]


def test_shards_are_hashed_once(store: Path, hashed: Hashed) -> None:
    ScoreStore(store)
    assert hashed() == ALL
    ScoreStore(store)
    ScoreRows(str(store)).setup("fit")
    assert hashed() == []
    ScoreStore(store.parent / "." / "s")
    assert hashed() == []


def test_a_shard_whose_times_changed_is_hashed_again(store: Path, hashed: Hashed) -> None:
    ScoreStore(store)
    os.utime(store / "steps" / "000001.arrow")
    hashed()
    ScoreStore(store)
    assert hashed() == ["steps/1"]
    ScoreStore(store)
    assert hashed() == []


@pytest.mark.parametrize("how", ["in place", "with its former times", "replaced"])
def test_damage_after_verification_is_found(store: Path, how: str) -> None:
    ScoreStore(store)
    file = store / "steps" / "000002.arrow"
    before, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "replaced":
        file.unlink()
    file.write_bytes(data)
    if how != "in place":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match=r"score store is damaged: .*000002\.arrow does not match"):
        ScoreStore(store)


@pytest.mark.parametrize("how", ["argument", "variable", "data module"])
def test_all_shards_are_hashed_on_request(
    store: Path, hashed: Hashed, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ScoreStore(store)
    hashed()
    if how == "variable":
        monkeypatch.setenv("RETRIEVAL_HEADS_VERIFY", "1")
        ScoreStore(store)
    elif how == "argument":
        ScoreStore(store, verify="always")
    else:
        ScoreRows(str(store), verify="always").setup("fit")
    assert hashed() == ALL


def test_verify_of_the_command_line_ends_with_the_command(
    store: Path, hashed: Hashed, run: Run, tmp_path: Path, measured: Callable[..., Any]
) -> None:
    ranking = ("ranking", store, tmp_path / "heads.json")
    assert run(*ranking)[0] == 0
    hashed()
    assert run(*ranking)[0] == 0
    assert hashed() == []
    assert run(*ranking, "--verify")[0] == 0
    assert hashed() == ALL
    small = ("--model.init_args.static_top", 3, "--model.init_args.static_sizes", "[2]")
    assert "metrics" in measured("dynamism", store, *small, "--verify")
    assert set(hashed()) == set(ALL)
    assert "RETRIEVAL_HEADS_VERIFY" not in os.environ
    assert run(*ranking)[0] == 0
    assert hashed() == []


def test_the_manifest_counts_not_the_memory(store: Path) -> None:
    ScoreStore(store)
    manifest = read_manifest(store)
    manifest["shards"][1]["samples"]["sha256"] = "0" * 64
    write_manifest(store, manifest)
    with pytest.raises(UserError, match=r"000001\.arrow does not match"):
        ScoreStore(store)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"shards": 3}', '{"shards": {"steps/000000.arrow": 1}}'])
def test_an_unusable_memory_is_replaced(store: Path, hashed: Hashed, tmp_path: Path, text: str) -> None:
    ScoreStore(store)
    (memory,) = (tmp_path / "cache" / "verified").iterdir()
    former = json.loads(memory.read_text())
    memory.write_text(text)
    hashed()
    ScoreStore(store)
    assert hashed() == ALL
    assert json.loads(memory.read_text()) == former


def test_a_cache_folder_that_cannot_be_written_is_no_error(
    store: Path, hashed: Hashed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RETRIEVAL_HEADS_CACHE", str(tmp_path / "file" / "below"))
    for _ in range(2):
        ScoreStore(store)
        assert hashed() == ALL


def test_a_shard_of_this_moment_is_not_remembered(store: Path, hashed: Hashed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change right after the hash may leave the times as they are, where a file system gives them coarsely."""
    monkeypatch.setattr(verification, "SETTLED", 600.0)
    for _ in range(2):
        ScoreStore(store)
        assert hashed() == ALL


def test_a_small_store_leaves_nothing_in_the_cache(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "WORTH_SHARDS", 500)
    ScoreStore(store)
    assert not (tmp_path / "cache").exists()


def test_a_copy_is_verified_by_itself(store: Path, hashed: Hashed, tmp_path: Path) -> None:
    ScoreStore(store)
    hashed()
    ScoreStore(shutil.copytree(store, tmp_path / "copy"))
    assert hashed() == ALL


def test_a_resumed_extraction_does_not_hash_finished_batches_again(store: Path, hashed: Hashed) -> None:
    shards = read_manifest(store)["shards"]
    (store / "parts").mkdir()
    for shard in shards:
        write_part(store, shard)
    assert finished_batches(store) == {0: shards[0], 1: shards[1], 2: shards[2]}
    assert hashed() == ALL
    assert sorted(finished_batches(store)) == [0, 1, 2]
    assert hashed() == []


@pytest.mark.parametrize("text", ["{", "[]", '{"batch": 1}', '{"batch": 0, "samples": 1, "steps": 2}'])
def test_a_damaged_part_is_left_out(store: Path, text: str) -> None:
    shards = read_manifest(store)["shards"]
    (store / "parts").mkdir()
    for shard in shards:
        write_part(store, shard)
    (store / "parts" / "000001.json").write_text(text)
    assert sorted(finished_batches(store)) == [0, 2]
    former = json.dumps(shards[1])  # earlier versions wrote no hash
    (store / "parts" / "000001.json").write_text(former)
    assert sorted(finished_batches(store)) == [0, 1, 2]
    (store / "parts" / "000001.json").rename(store / "parts" / "000007.json")
    assert sorted(finished_batches(store)) == [0, 2]

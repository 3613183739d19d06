"""Merging: the stores of all shares are the store that one machine writes; anything else is refused in one line."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from extract.errors import UserError
from extract.store import ScoreStore, merge_stores, merging, read_manifest, write_manifest
from tests.conftest import Run
from tests.helpers.stores import make_store

Extract = Callable[..., tuple[int, str]]
SHARE = "--data.init_args.share"


def shares(folder: Path, of: int = 3, samples: int = 24) -> list[Path]:
    """Synthetic stores of the shares of one task with 6 batches, and `whole`, the store of all."""
    whole = make_store(folder / "whole", samples=samples, shards=6)
    found = []
    for number in range(of):
        store = folder / f"share-{number + 1}"
        manifest = read_manifest(whole)
        kept = [shard for shard in manifest["shards"] if shard["batch"] % of == number]
        for table in ("samples", "steps"):
            (store / table).mkdir(parents=True)
            for shard in kept:
                shutil.copy(whole / shard[table]["file"], store / shard[table]["file"])
        manifest |= {"share": f"{number + 1}/{of}", "shards": kept, "fingerprint": str(number)}
        manifest |= {"versions": {"python": "3"}, "samples": 0, "steps": 0}
        write_manifest(store, manifest)
        found.append(store)
    return found


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file below a folder."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def test_merged_shares_are_the_store_of_one_machine(extract_tiny: Extract, run: Run, tmp_path: Path) -> None:
    assert extract_tiny(tmp_path / "whole")[0] == 0
    stores = [tmp_path / "b", tmp_path / "a"]  # in any order
    for store, share in zip(stores, ("2/2", "1/2"), strict=True):
        assert extract_tiny(store, SHARE, share)[0] == 0
    before = [contents(store) for store in stores]
    merged = tmp_path / "merged"
    code, said = run("merge", *stores, "--output", merged)
    assert code == 0, said
    assert [contents(store) for store in stores] == before
    one, other = (read_manifest(tmp_path / name) for name in ("whole", "merged"))
    own = {name: other.pop(name) for name in ("merged", "command")}
    assert other == {name: value for name, value in one.items() if name != "command"}
    assert own["command"].startswith("lightning")  # what a test runs has no words of its own
    assert [part["share"] for part in own["merged"]] == ["1/2", "2/2"]
    for shard in one["shards"]:
        for table in ("samples", "steps"):
            file = shard[table]["file"]
            assert (merged / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
            assert (merged / file).stat().st_nlink == 2  # no copy
    assert ScoreStore(merged, verify="always").fingerprint == ScoreStore(tmp_path / "whole").fingerprint
    assert "# Retrieval scores" in (merged / "README.md").read_text()
    assert run("merge", *stores, "--output", merged)[0] == 0  # again: nothing to do
    assert extract_tiny(merged)[0] == 0  # complete for a run of the whole task, too


def test_a_share_is_continued_as_itself_alone(extract_tiny: Extract, tmp_path: Path) -> None:
    store, part = tmp_path / "s", (SHARE, "1/2")
    extract_tiny(store, *part, "--trainer.limit_predict_batches", 1)
    for other in ((), (SHARE, "2/2"), (SHARE, "1/3")):
        code, said = extract_tiny(store, *other)
        assert code == 2 and "begun with other settings (share: 1/2 there, " in said
    assert extract_tiny(store, *part)[0] == 0
    assert [shard["batch"] for shard in read_manifest(store)["shards"]] == [0, 2]
    for wrong in ("0/2", "3/2", "half"):
        code, said = extract_tiny(tmp_path / "t", SHARE, wrong)
        assert code == 2 and f"data.share {wrong}" in said
    code, said = extract_tiny(tmp_path / "t", SHARE, "4/4")  # of three batches
    assert code == 2 and "only 3 batches" in said


@pytest.mark.parametrize("linked", [True, False])
def test_rows_are_those_of_the_whole_by_links_or_copies(
    tmp_path: Path, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = shares(tmp_path)
    if not linked:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "cross-device")))
    found = merge_stores(stores, tmp_path / "merged")
    assert (found.linked, found.copied) == ((12, 0) if linked else (0, 12))
    whole, merged = ScoreStore(tmp_path / "whole"), ScoreStore(tmp_path / "merged")
    for table in ("samples", "steps"):
        assert [one.to_pylist() for one in merged.tables(table)] == [one.to_pylist() for one in whole.tables(table)]
    assert (found.manifest["samples"], found.manifest["steps"]) == (24, len(whole.scalars("token")))


def other_llm(manifest: dict[str, object]) -> None:
    manifest["llm"] = {**manifest["llm"], "weights": "sha256:" + "1" * 64}  # type: ignore[dict-item]


def other_task(manifest: dict[str, object]) -> None:
    manifest["task"] = {"class": "NIAH", "seed": 1}


def other_share(manifest: dict[str, object]) -> None:
    manifest["share"] = "2/4"


def same_share(manifest: dict[str, object]) -> None:
    manifest["share"] = "1/3"


def no_share(manifest: dict[str, object]) -> None:
    del manifest["share"]


def other_numbers(manifest: dict[str, object]) -> None:
    manifest["software"] = {"version": "9", "commit": None, "numbers": 9}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_llm, "differ in llm.weights"),
        (other_task, "differ in task.seed: 0 there, 1 here"),
        (other_share, "is share 2/4 of its task"),
        (same_share, "share 1/3 is given 2 times"),
        (no_share, "is share 1/1 of its task"),
        (other_numbers, "differ in numbers"),
    ],
)
def test_stores_that_are_not_the_shares_of_one_task_are_refused(
    tmp_path: Path, change: Callable[[dict[str, object]], None], said: str
) -> None:
    stores = shares(tmp_path)
    manifest = read_manifest(stores[1])
    change(manifest)
    write_manifest(stores[1], manifest)
    with pytest.raises(UserError, match=said):
        merge_stores(stores, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_shared_samples_damage_missing_shares_and_other_outputs_are_refused(run: Run, tmp_path: Path) -> None:
    stores = shares(tmp_path)

    def refused(said: str, *given: Path, output: Path = tmp_path / "merged") -> None:
        code, error = run("merge", *given, "--output", output)
        assert code == 2 and said in error and error.count("\n") == 1

    refused("share 3/3 is missing", *stores[:2])
    refused("is one store", stores[0])
    refused("is inside one of the stores", *stores, output=stores[1] / "merged")
    refused("exists and is no merge", *stores, output=tmp_path)
    refused("holds another store", *stores, output=tmp_path / "whole")
    (tmp_path / "file").write_text("")
    refused("exists and is no merge", *stores, output=tmp_path / "file")
    refused("cannot write the store", *stores, output=tmp_path / "file" / "merged")
    again = make_store(tmp_path / "again", samples=24, shards=6)  # the content of others by other numbers
    for number, store in enumerate(stores[:2]):
        manifest = read_manifest(store)
        shutil.copy(again / "samples/000000.arrow", store / "samples/000000.arrow")
        manifest["shards"][0]["samples"] = {
            **read_manifest(again)["shards"][0]["samples"],
            "file": "samples/000000.arrow",
        }
        manifest["shards"][0]["batch"] = number
        write_manifest(store, manifest)
    refused("both hold sample or batch 0", *stores)
    (stores[2] / "steps/000002.arrow").write_bytes(b"x")
    refused("score store is damaged", *stores)
    assert not (tmp_path / "merged").exists()


def test_content_under_two_numbers_is_refused(tmp_path: Path) -> None:
    stores = shares(tmp_path)
    twin = make_store(tmp_path / "twin", samples=48, shards=12, ids="toy:0")  # every sample has the same id
    manifest, others = read_manifest(stores[1]), read_manifest(twin)
    shutil.copy(twin / "samples/000007.arrow", stores[1] / "samples/000001.arrow")
    manifest["shards"][0]["samples"] = {**others["shards"][7]["samples"], "file": "samples/000001.arrow"}
    write_manifest(stores[1], manifest)
    with pytest.raises(UserError, match="both hold sample toy:0"):
        merge_stores(stores, tmp_path / "merged")


def test_an_interrupted_merge_leaves_nothing_and_is_redone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores, original, links = shares(tmp_path), os.link, list[object]()

    def interrupted(*given: object) -> None:
        links.append(given)
        if len(links) == 5:
            raise KeyboardInterrupt
        original(*given)  # type: ignore[arg-type]

    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge_stores(stores, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert merge_stores(stores, tmp_path / "merged").linked == 12


def test_a_copy_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = shares(tmp_path)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    monkeypatch.setattr(merging.shutil, "copyfile", lambda _, target: target.write_bytes(b"x"))
    with pytest.raises(UserError, match="its copy does not match its sha256"):
        merge_stores(stores, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_summaries_are_added_up(tmp_path: Path) -> None:
    stores = shares(tmp_path)
    for store, (value, n) in zip(stores, ((0.5, 4), (None, 0), (0.25, 8)), strict=True):
        heads = {"value": None, "steps": 0}
        cut = {"value": value, "low": None, "high": None, "n": n}
        summary = {
            "metrics": {},
            "dynamic_heads": {"copy_paste": heads, "reasoning": {**heads, "threshold": 0.5}},
            "at_budget": cut,
        }
        write_manifest(store, {**read_manifest(store), "summary": summary})
    merged = merge_stores(stores, tmp_path / "merged").manifest
    assert json.loads(json.dumps(merged)) == merged
    assert (merged["summary"]["at_budget"]["value"], merged["summary"]["at_budget"]["n"]) == (4 / 12, 12)
    assert merged["summary"]["dynamic_heads"]["copy_paste"]["steps"] == merged["steps"]

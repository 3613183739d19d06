"""The score store: what was written is read, damage is found, interrupted runs are resumed."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from extract.errors import UserError
from extract.store import ScoreStore, column_matrix, finished_batches, read_shard, vector_column, write_shard
from extract.utils import write_bytes
from tests.conftest import ROOT
from tests.helpers.processes import started
from tests.helpers.stores import make_store

Extract = Callable[..., tuple[int, str]]


def rows(store: Path | str) -> dict[tuple[int, int], dict[str, np.ndarray]]:
    """Every step row by (sample, step); a repeated row fails."""
    opened = ScoreStore(store)
    out: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    for table in opened.tables("steps"):
        columns = {name: column_matrix(table[name]) for name in ("hidden", "copy_paste", "reasoning", "argmax")}
        columns["token"] = table["token"].to_numpy()
        for i, key in enumerate(zip(table["sample"].to_pylist(), table["step"].to_pylist(), strict=True)):
            assert key not in out
            out[key] = {name: column[i] for name, column in columns.items()}
    return out


def assert_same(a: Path | str, b: Path | str, subset: bool = False) -> None:
    """Same rows: tokens and scores equal, hidden states within 1e-4. `subset`: b may hold further samples."""
    first, second = rows(a), rows(b)
    if subset:
        samples = {sample for sample, _ in first}
        second = {key: row for key, row in second.items() if key[0] in samples}
    assert first.keys() == second.keys()
    for key, row in first.items():
        for name in ("token", "copy_paste", "argmax"):
            np.testing.assert_array_equal(row[name], second[key][name], err_msg=f"{key} {name}")
        np.testing.assert_allclose(row["hidden"], second[key]["hidden"], atol=1e-4, rtol=0)
        np.testing.assert_allclose(row["reasoning"], second[key]["reasoning"], atol=1e-4, rtol=0)


def test_vector_columns_and_matrices_are_inverse_and_copy_nothing(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    entry = write_shard(tmp_path / "a.arrow", pa.table({"x": vector_column(values)}))
    read = column_matrix(read_shard(tmp_path / "a.arrow")["x"])
    np.testing.assert_array_equal(read, values)
    assert not read.flags.owndata
    assert not read.flags.writeable
    assert entry["rows"] == 4


def test_store_has_schema_manifest_and_datasets_view(extract_tiny: Extract, tmp_path: Path) -> None:
    assert extract_tiny(tmp_path / "s")[0] == 0
    store = ScoreStore(tmp_path / "s")
    assert store.manifest["samples"] == 5
    assert store.manifest["batch_size"] == 2
    assert [shard["samples"]["rows"] for shard in store.manifest["shards"]] == [2, 2, 1]
    assert not (tmp_path / "s" / "parts").exists()
    assert "-c configs/extract/niah.yaml" in store.manifest["command"]
    steps = store.dataset("steps")
    vectors = {"hidden", "copy_paste", "reasoning", "argmax"}
    assert set(steps.column_names) == {"store", "sample", "id", "step", "token", *vectors}
    assert len(steps[0]["hidden"]) == 32
    assert len(steps[0]["argmax"]) == 12
    sample = store.samples().to_pylist()[0]
    assert {"prompt", "evidence", "question", "gold", "answer", "accuracy", "rouge_l", "length", "depth"} <= set(sample)
    start, end = sample["evidence"][0]
    assert 0 < start < end <= len(sample["prompt"])
    total = sum(row["steps"] for row in store.samples().to_pylist())
    assert total == store.manifest["steps"] == len(steps)


def test_shards_of_an_earlier_version_may_lack_metrics(extract_tiny: Extract, tmp_path: Path) -> None:
    assert extract_tiny(tmp_path / "s")[0] == 0
    store = ScoreStore(tmp_path / "s")
    first, *others = store.tables("samples")
    store._tables["samples"] = [first.drop_columns(["rouge_l"]), *others]
    column = store.samples()["rouge_l"].to_pylist()
    assert column[:2] == [None, None]
    assert None not in column[2:]


def test_batch_size_changes_no_row(extract_tiny: Extract, tmp_path: Path) -> None:
    assert extract_tiny(tmp_path / "a")[0] == 0
    assert extract_tiny(tmp_path / "b", "--data.init_args.batch_size", 5)[0] == 0
    assert_same(tmp_path / "a", tmp_path / "b")


def test_a_complete_store_is_reused_and_another_config_refused(extract_tiny: Extract, tmp_path: Path) -> None:
    store = tmp_path / "s"
    assert extract_tiny(store)[0] == 0
    before = {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()}
    assert extract_tiny(store)[0] == 0
    assert {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()} == before
    code, error = extract_tiny(store, "--data.init_args.task.init_args.seed", 7)
    assert code == 2
    assert "begun with other settings (task.seed: 0 there, 7 here)" in error
    assert "delete that folder" in error
    assert {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()} == before


@pytest.mark.filterwarnings("ignore:task depths")  # short haystacks
def test_a_grid_replaces_a_random_axis_on_the_command_line(extract_tiny: Extract, tmp_path: Path) -> None:
    task = "--data.init_args.task.init_args"
    grid = (f"{task}.lengths", "{start: 20, stop: 40, step: 10}", f"{task}.depths", "[0, 100]", f"{task}.runs", 1)
    assert extract_tiny(tmp_path / "s", *grid)[0] == 0
    rows_ = ScoreStore(tmp_path / "s").samples().to_pylist()
    cells = sorted((row["length"], row["requested_depth"]) for row in rows_)
    assert cells == [(n, d) for n in (20, 30, 40) for d in (0, 100)]


def test_shards_without_a_manifest_are_not_adopted(extract_tiny: Extract, tmp_path: Path) -> None:
    extract_tiny(tmp_path / "s", "--trainer.limit_predict_batches", 1)
    (tmp_path / "s" / "manifest.json").unlink()
    code, error = extract_tiny(tmp_path / "s", "--data.init_args.task.init_args.seed", 7)
    assert code == 2
    assert "holds shards but no manifest" in error


def test_a_run_killed_before_its_manifest_begins_again(extract_tiny: Extract, tmp_path: Path) -> None:
    for folder in ("samples", "steps", "parts"):
        (tmp_path / "s" / folder).mkdir(parents=True)
    assert extract_tiny(tmp_path / "s")[0] == 0
    ScoreStore(tmp_path / "s")


def test_a_folder_of_something_else_is_left_alone(extract_tiny: Extract, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"name": "a web app"}')
    code, error = extract_tiny(tmp_path / "other")
    assert code == 2
    assert "not a manifest of a score store" in error
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["manifest.json"]


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "truncated":
        data = data[:-8]
    else:
        data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "flipped"])
@pytest.mark.parametrize("table", ["samples", "steps"])
def test_damaged_shards_are_found(tmp_path: Path, how: str, table: str) -> None:
    make_store(tmp_path / "s")
    damage(tmp_path / "s" / table / "000001.arrow", how)
    with pytest.raises(UserError, match=r"score store is damaged: .*000001\.arrow .* extract again"):
        ScoreStore(tmp_path / "s")


def test_missing_store_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lightning predict -c configs/extract/niah\.yaml --store .*none"):
        ScoreStore(tmp_path / "none")


def test_edited_manifest_is_refused(tmp_path: Path) -> None:
    file = make_store(tmp_path / "s") / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["llm"]["name"] = "a-better-model"
    file.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="was edited"):
        ScoreStore(tmp_path / "s")
    file.write_text("{")
    with pytest.raises(UserError, match="not a manifest"):
        ScoreStore(tmp_path / "s")


def test_incomplete_store_names_the_command_that_finishes_it(extract_tiny: Extract, tmp_path: Path) -> None:
    code, _ = extract_tiny(tmp_path / "s", "--trainer.limit_predict_batches", 1)
    assert code == 2
    with pytest.raises(UserError, match=r"incomplete; finish it with: lightning predict -c configs/extract"):
        ScoreStore(tmp_path / "s")
    assert extract_tiny(tmp_path / "s")[0] == 0
    assert extract_tiny(tmp_path / "t")[0] == 0
    assert_same(tmp_path / "s", tmp_path / "t")


def test_a_damaged_finished_batch_is_run_again_on_resume(extract_tiny: Extract, tmp_path: Path) -> None:
    extract_tiny(tmp_path / "s", "--trainer.limit_predict_batches", 2)
    assert sorted(finished_batches(tmp_path / "s")) == [0, 1]
    damage(tmp_path / "s" / "steps" / "000000.arrow", "flipped")
    (tmp_path / "s" / "steps" / "000009.arrow.tmp").write_bytes(b"left over")
    assert sorted(finished_batches(tmp_path / "s")) == [1]
    assert extract_tiny(tmp_path / "s")[0] == 0
    ScoreStore(tmp_path / "s")
    assert not list((tmp_path / "s").rglob("*.tmp"))


def test_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A file size limit is a full disk that a test can have; it is set in another process."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from extract.utils import write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_bytes(Path(sys.argv[1]), bytes(5000))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert out.stdout.startswith("UserError cannot write")
    assert "File too large" in out.stdout
    assert list(tmp_path.iterdir()) == []


def test_write_replaces_at_once(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"old")
    write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


def arguments(store: Path, folder: Path, runs: Path, *extra: object) -> list[str]:
    """Those of `lightning predict`."""
    configs = ("-c", "configs/extract/niah.yaml", "-c", "tests/configs/tiny_niah.yaml")
    options = ("--llm.init_args.name", folder, "--store", store, "--trainer.default_root_dir", runs)
    return [str(x) for x in ("predict", *configs, *options, *extra)]


def command(store: Path, folder: Path, runs: Path, *extra: object) -> list[str]:
    """`lightning predict` as a process."""
    return [sys.executable, "-m", "probe", *arguments(store, folder, runs, *extra)]


MANY = ("--data.init_args.task.init_args.runs", 75, "--data.init_args.batch_size", 3)


@pytest.mark.slow
def test_killed_three_times_it_ends_equal_to_an_unbroken_run(tmp_path: Path, tiny_llm_folder: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    rng, killed = random.Random(0), 0
    for _ in range(3):
        process = started(*arguments(broken, tiny_llm_folder, tmp_path / "runs", *MANY))
        begun = len(list((broken / "parts").glob("*.json")))
        while process.is_alive() and len(list((broken / "parts").glob("*.json"))) == begun:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed == 3
    assert not json.loads((broken / "manifest.json").read_text())["complete"]
    for store in (broken, whole):
        process = started(*arguments(store, tiny_llm_folder, tmp_path / "runs", *MANY))
        process.join()
        assert process.exitcode == 0
    assert_same(broken, whole)
    assert ScoreStore(broken).fingerprint == ScoreStore(whole).fingerprint


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(extract_tiny: Extract, tmp_path: Path, tiny_llm_folder: Path) -> None:
    assert extract_tiny(tmp_path / "one")[0] == 0
    ddp = ("--trainer.devices", 2, "--trainer.strategy", "ddp")
    subprocess.run(command(tmp_path / "two", tiny_llm_folder, tmp_path / "runs", *ddp), check=True, cwd=ROOT)
    assert_same(tmp_path / "one", tmp_path / "two")


def test_a_store_of_the_first_layout_opens() -> None:
    """Written before the packages were divided: format 2, three needle prompts of a random LLM with 3 × 4 heads."""
    store = ScoreStore(ROOT / "tests/extract/store/format_2")
    assert store.fingerprint == "ee68639e0e834969e6ff0a2b5427fb9199b5d53e1c7c06f2085a257f4c11a526"
    assert (store.identity.layers, store.identity.heads, store.hidden_size) == (3, 4, 32)
    assert store.manifest["task"]["class"] == "NIAH"
    for row in store.samples().to_pylist():
        steps = store.steps(row["sample"])
        assert len(steps) == row["steps"]
        assert steps.hidden.shape == (len(steps), 32)
        assert steps.argmax is not None
        assert steps.argmax.max() < len(row["prompt"]) + len(steps)
    assert sum(row["steps"] for row in store.samples().to_pylist()) == store.manifest["steps"] == 11

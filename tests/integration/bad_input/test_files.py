"""Files that are damaged, or rightly hashed and of another form: one line, exit code 2, nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from extract.store import write_shard
from tests.helpers.bad_input import FIT, QA, TEST, refused, resign

Change = Callable[[dict[str, Any]], Any]


def put(key: str, value: Any) -> Change:
    """Set a value; the key's parts are divided by dots."""
    *above, last = key.split(".")

    def change(record: dict[str, Any]) -> None:
        inner: Any = record
        for part in above:
            inner = inner[int(part)] if part.isdigit() else inner[part]
        inner[int(last) if last.isdigit() else last] = value

    return change


def drop(key: str) -> Change:
    """Remove a key."""
    *above, last = key.split(".")

    def change(record: dict[str, Any]) -> None:
        inner: Any = record
        for part in above:
            inner = inner[int(part)] if part.isdigit() else inner[part]
        del inner[last]

    return change


def repeat(manifest: dict[str, Any]) -> None:
    manifest["shards"].append(manifest["shards"][0])


MANIFESTS: list[tuple[Change, str]] = [
    *((drop(key), f"'{key}' is missing") for key in ("complete", "command", "llm", "task", "fingerprint", "shards")),
    *((put(key, 3), f"{key}: ") for key in ("complete", "command", "llm", "task", "fingerprint", "shards")),
    *((drop(f"llm.{key}"), f"'{key}' is missing") for key in ("name", "weights", "layers", "heads", "hidden_size")),
    *((put(f"llm.{key}", value), f"llm, {key}") for key, value in (("layers", 0), ("heads", "3"), ("name", None))),
    (put("llm.hidden_size", 10**30), "llm, hidden_size"),
    (put("llm.config", 3), "llm, config"),
    (put("llm.extra", 3), "'extra' is no field"),
    (put("llm.heads", 2), "column 'copy_paste' has 6 values a row, but the manifest's LLM 4"),
    (put("sink", "4"), "sink"),
    (put("software", 3), "software"),
    (put("shards.0", 3), "shards, 0: an object is expected"),
    (drop("shards.1.steps"), "shards, 1: 'steps' is missing"),
    (drop("shards.1.steps.sha256"), "shards, 1, steps: 'sha256' is missing"),
    (put("shards.0.steps.rows", -1), "shards, 0, steps, rows"),
    (put("shards.0.batch", None), "shards, 0, batch"),
    (put("shards.0.steps.file", "../steps/000000.arrow"), "is not in the store's steps/"),
    (put("shards.0.steps.file", "/etc/passwd"), "is not in the store's steps/"),
    (put("shards.0.steps.file", "steps/.."), "is not in the store's steps/"),
    (put("shards.0.samples.file", "steps/000000.arrow"), "is not in the store's samples/"),
    (put("shards.0.steps.file", "steps/none.arrow"), "is missing"),
    (repeat, "it lists shard samples/000000.arrow twice"),
    (put("format", 1), "has format 1; this version reads 2"),
    (drop("format"), "is not a manifest"),
    (put("complete", False), "is incomplete; finish it with"),
    (put("shards", []), "no shard"),
]


@pytest.mark.parametrize(("change", "fragment"), MANIFESTS, ids=[f"{n} {f}"[:60] for n, (_, f) in enumerate(MANIFESTS)])
def test_a_manifest_that_is_hashed_again(
    change: Change, fragment: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = resign(shutil.copytree(place / "s", tmp_path / "s"), change)
    line = refused(tmp_path, capsys, "ranking", store, tmp_path / "out.json")
    assert fragment in line


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "is not a manifest"),
        (b"[]", "is not a manifest"),
        (b"3", "is not a manifest"),
        (b"{", "is not a manifest"),
        (b"\xff", "is not a manifest"),
        (b"[" * 100_000, "is not a manifest"),
        (b'{"sha256": "", "format": 2}', "was edited"),
    ],
)
def test_a_manifest_that_is_none(
    content: bytes, fragment: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = shutil.copytree(place / "s", tmp_path / "s")
    (store / "manifest.json").write_bytes(content)
    assert fragment in refused(tmp_path, capsys, "ranking", store, tmp_path / "out.json")


NUMBERS = {name: pa.array([0]) for name in ("sample", "step", "token")}
VECTOR = pa.FixedSizeListArray.from_arrays(pa.array([0.0] * 8, pa.float32()), 8)


@pytest.mark.parametrize(
    ("columns", "fragment"),
    [
        ({}, "column 'sample' is missing"),
        ({**NUMBERS, "token": pa.array(["a"])}, "column 'token' has the type string"),
        ({**NUMBERS, "hidden": pa.array([1.0])}, "column 'hidden' has the type double"),
        ({**NUMBERS, "step": pa.array([None], pa.int32())}, "column"),
        ({**NUMBERS, "hidden": VECTOR, "copy_paste": VECTOR, "reasoning": VECTOR}, "has 8 values a row"),
    ],
)
def test_a_shard_of_other_columns(
    columns: dict[str, Any], fragment: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = shutil.copytree(place / "s", tmp_path / "s")
    entry = write_shard(store / "steps" / "000000.arrow", pa.table(columns))
    resign(store, lambda manifest: manifest["shards"][0].update(steps=entry))
    assert fragment in refused(tmp_path, capsys, "ranking", store, tmp_path / "out.json")


def weights(value: float) -> Change:
    def change(checkpoint: dict[str, Any]) -> None:
        next(iter(checkpoint["state_dict"].values())).fill_(value)

    return change


CHECKPOINTS: list[tuple[Change, str]] = [
    *((drop(key), f"'{key}' is missing") for key in ("state_dict", "hyper_parameters")),
    (drop("probe"), "is not a probe's checkpoint"),
    *((put(key, 3), f"{key.replace('.', ', ')}: ") for key in ("state_dict", "hyper_parameters", "probe.class")),
    (put("probe.class", "probe.Nope"), "not a known probe"),
    (put("probe.class", "os.system"), "not a known probe"),
    (put("probe.class", "probe.ProbeRegressor"), "holds a probe.ProbeRegressor"),
    *((drop(f"probe.{key}"), f"'{key}' is missing") for key in ("class", "origin")),
    *((drop(f"probe.origin.{key}"), f"'{key}' is missing") for key in ("llm", "store", "target", "split")),
    (put("probe.origin.seen", [3]), "seen, 0: str is expected"),
    (put("probe.origin.llm.layers", -1), "llm, layers"),
    (put("probe.origin.split", []), "split: an object is expected"),
    (put("probe.baselines", 3), "baselines: a list is expected"),
    (put("probe.baselines.0.static", 3), "static: Tensor is expected"),
    (put("probe.baselines.0.extra", 3), "'extra' is no field of a baseline"),
    (drop("probe.baselines.0.heads"), "'heads' is missing"),
    *((drop(f"probe.baselines.0.thresholds.{kind}"), f"thresholds: '{kind}' is missing") for kind in ("step", "heads")),
    (put("probe.baselines.0.thresholds.step", "3"), "thresholds, step: int or float is expected"),
    (put("probe.wake_thresholds", {1: {}}), "wake_thresholds, 1: no offset that has baselines"),
    (put("probe.wake_thresholds", {0: {}}), "wake_thresholds, 0: 'probe' is missing"),
    (put("hyper_parameters.dropout", 3.0), "dropout: at least 0 and below 1, not 3.0"),
    (put("hyper_parameters.hidden", [10**9]), "hidden: at least 1 and at most 1048576"),
    (put("hyper_parameters.nope", 3), "nope"),
    (weights(float("nan")), "NaN or infinite values"),
    (weights(float("inf")), "NaN or infinite values"),
]


@pytest.mark.parametrize(
    ("change", "fragment"), CHECKPOINTS, ids=[f"{n} {f}"[:60] for n, (_, f) in enumerate(CHECKPOINTS)]
)
def test_a_checkpoint_of_another_form(
    change: Change, fragment: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(place / "ckpts" / "best.ckpt", weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "best.ckpt")
    assert fragment in refused(place, capsys, *TEST, "--ckpt_path", tmp_path / "best.ckpt")


RANKINGS: list[tuple[str, str | bytes, str]] = [
    ("r.txt", "{}", "a .json, .yaml or .tsv file is expected"),
    ("r.json", "", "is not JSON"),
    ("r.json", "[" * 10**5, "more than 100 levels"),
    ("r.json", b"\xff", "is not UTF-8 text"),
    ("r.json", "{}", "names no head"),
    ("r.json", "3", "is expected"),
    ("r.json", '{"a": [1]}', "is not a head"),
    ("r.json", '{"0-0": []}', "at least one score"),
    ("r.json", '{"0-0": ["x"]}', "finite numbers are expected"),
    ("r.json", '{"0-0": [NaN]}', "finite numbers are expected"),
    ("r.json", f'{{"0-0": 1{"0" * 400}}}', "a number of 401 digits"),
    ("r.json", '{"0-0": 1, "0-0": 2}', "twice"),
    ("r.json", '["0-0", "L0H0"]', "names head 0-0 twice"),
    ("r.json", '["99999-99999"]', "no LLM has that many"),
    ("r.json", "[[0, -1]]", "is not a head"),
    ("r.json", '["0-0"]', "ranks 1 heads"),
    ("r.yaml", "a: [", "is not YAML"),
    ("r.yaml", "a: 2020-13-45", "is not YAML"),
    ("r.yaml", "[" * 2000, "more than 100 levels"),
    ("r.yaml", "attn_head_set: 3", "is expected, best first"),
    ("r.tsv", "", "lines of equally many numbers"),
    ("r.tsv", "1\t2\n3", "lines of equally many numbers"),
    ("r.tsv", "1\tx", "could not convert"),
    ("r.tsv", "1\tnan", "finite numbers are expected"),
]


@pytest.mark.parametrize(("name", "content", "fragment"), RANKINGS)
def test_a_ranking_of_another_form(
    name: str, content: str | bytes, fragment: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert fragment in refused(place, capsys, "overlap", tmp_path / name, tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("c.yaml", b"trainer: [1, 2\ndata: }", "Problems parsing config"),
        ("c.yaml", b"model: \xff", "not UTF-8 text"),
        ("c.yaml", b"trainer: " + b"[" * 3000 + b"]" * 3000, "more than 100 levels"),
        ("c.yaml", b"trainer: {max_epoch: 3}", "did you mean 'trainer.max_epochs'?"),
        ("c.yaml", b"3", "config"),
        ("c.yaml", b"- 3", "config"),
        ("c.yaml", b"store: [1]", "store"),
        ("c.yaml", b'store: "\\uD800"', "invalid Unicode character"),
    ],
)
def test_a_config_of_another_form(
    name: str, content: bytes, fragment: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert fragment in refused(place, capsys, *FIT, "-c", tmp_path / name)


TRACE = {"id": "q", "strategy": "s", "rounds": [], "metrics": {}}


@pytest.mark.parametrize(
    "content", [b"{", b"3", b"\xff", b"[" * 10**5, b"{}", json.dumps(TRACE).encode(), json.dumps([TRACE]).encode()]
)
def test_traces_of_another_form(
    content: bytes, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "traces.jsonl").write_bytes(content)
    assert "traces.jsonl, line 1, is no" in refused(place, capsys, "trace", tmp_path / "traces.jsonl")


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("ranking", "none", "r.json"), "no score store at none"),
        (("ranking", "s", "r.txt"), "is written as .json, .yaml or .tsv"),
        (("ranking", "s", "r.json", "--kv_heads", "4"), "do not form 4 groups"),
        (("ranking", "s", "r.json", "--split.fractions", "[1,0,0]"), "fractions"),
        (("overlap", "s", "s"), "ranks 6 heads"),
        (("overlap", "s", "none.json"), "there is no ranking file"),
        (("overlap", "s", "s", "--n", "0"), "--n: at least 1"),
        (("report", "none"), "nothing at none"),
        (("report",), "required"),
        (("report", "s", "--samples", "0"), "--samples: at least 1"),
        (("report", "s", "--threshold", "2"), "--threshold: at least 0 and at most 1"),
        (("trace", "none"), "no traces at none"),
        (("configs", "tiny.yaml"), "choose another folder"),
        (("overlap", "s", "\udcff"), "lone surrogate"),
    ],
)
def test_a_mistake_in_a_command(
    words: tuple[str, ...], fragment: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment in refused(place, capsys, *words)


def test_questions_none_of_which_is_usable(
    place: Path, tiny_llm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.jsonl").write_text('{"id": "a"}\n{"id": "b"}\n3\n', encoding="utf-8")
    source = {"class_path": "extract.JsonLines", "init_args": {"files": str(tmp_path / "q.jsonl")}}
    where = ("--trainer.accelerator", "cpu", "--llm.init_args.name", tiny_llm_folder)
    line = refused(place, capsys, *QA, *where, "--data.init_args.task.init_args.source", json.dumps(source))
    assert "no usable question; questions left out: 2, no field 'question' (a, b)" in line

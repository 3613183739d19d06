"""`python -m tests.benchmarks.flips [N]`: N changed bytes in each kind of file that is read back, and how many pass.

Every second change is a flipped bit, every other one a byte of any other value. A change passes if reading raises no
error; it counts as equal if the content that is read is the same, as with a blank that became a tab.
"""

import io
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

import probe
from extract.errors import UserError
from extract.llm.gguf import converted
from extract.store import ScoreStore, finished_batches, read_manifest, write_part
from probe.models import AtomicCheckpointIO, Probe
from probe.rag import read_traces
from probe.rag.results.reporting import write_traces
from probe.report.discovery import find_sources
from probe.results import Artifacts, Trials
from tests.conftest import ROOT
from tests.helpers.gguf_files import write_gguf
from tests.helpers.result_records import RECORDS, traces
from tests.helpers.stores import make_store

SAVED = ROOT / "tests/data/checkpoints_by_module_name/classifier.ckpt"
SETTINGS = {"llm": {"name": "x", "config": "y"}, "task": {"seed": 1, "depths": [0.1, 2.5e-07]}}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        file: One that was written by the project itself.
        read: Reads it as the project does; raises a UserError where it notices damage. Its value is the content.

    """

    file: Path
    read: Callable[[], Any]


@dataclass
class Count:
    """Changes of a kind of file: all, those that were read as the same content, as other content, and other errors."""

    changes: int = 0
    equal: int = 0
    unnoticed: int = 0
    errors: int = 0


def checkpoints(folder: Path) -> dict[str, Kind]:
    """A checkpoint as `probe.load` and `--ckpt_path` read it, and as Lightning does when a run goes on."""
    file = folder / "best.ckpt"
    AtomicCheckpointIO().save_checkpoint(torch.load(SAVED, weights_only=True), file)
    return {
        "best.ckpt (probe.load)": Kind(file, lambda: _content(probe.load(file))),
        "last.ckpt (resumed)": Kind(file, lambda: repr(AtomicCheckpointIO().load_checkpoint(file, weights_only=True))),
    }


def exports(folder: Path) -> dict[str, Kind]:
    """The files of an exported probe."""
    probe.save_pretrained(probe.load(SAVED), folder)
    return {name: Kind(folder / name, lambda: _content(probe.load(folder))) for name in (probe_json, probe_weights)}


probe_json, probe_weights = "probe.json", "probe.safetensors"


def _content(trained: Probe) -> str:
    return repr((type(trained), dict(trained.hparams), trained.training_record, trained.state_dict()))


def trials(folder: Path) -> dict[str, Kind]:
    """A batch of trials and their settings."""
    made = Trials(folder)
    made.open(SETTINGS)
    made.write(0, [{"sample": 0, "condition": "none", "f1": 2.5e-07, "answer": "Ada"}] * 3)
    made.close()

    def settings() -> Any:
        again = Trials(folder)
        try:
            return again.open(SETTINGS)
        finally:
            again.close()

    return {
        "trials, batch": Kind(folder / "000000.json", made.read),
        "trials, settings": Kind(folder / "settings.json", settings),
    }


def stores(folder: Path) -> dict[str, Kind]:
    """Manifest, shards and the file of a finished batch."""
    store = make_store(folder / "store", samples=6, shards=2)
    part = read_manifest(store)["shards"][0]
    (store / "parts").mkdir()
    write_part(store, part)

    def finished() -> Any:
        if not (found := finished_batches(store)):
            raise UserError("run again")
        return found

    return {
        "manifest.json": Kind(store / "manifest.json", lambda: ScoreStore(store).manifest),
        "samples/*.arrow": Kind(store / "samples" / "000000.arrow", lambda: ScoreStore(store).samples().to_pylist()),
        "steps/*.arrow": Kind(store / "steps" / "000001.arrow", lambda: [*map(str, ScoreStore(store).tables("steps"))]),
        "parts/*.json": Kind(store / "parts" / "000000.json", finished),
    }


def results(folder: Path) -> dict[str, Kind]:
    """Results and traces as the report and `lightning trace` read them."""
    record = {key: value for key, value in RECORDS["rag"].items() if key not in ("command", "experiment", "schema")}
    done: Any = SimpleNamespace(
        experiment="rag", results=record, records=lambda: [{"f1": 1}], table=lambda: "", plots=dict
    )
    trainer: Any = SimpleNamespace(is_global_zero=True, logger=None, log_dir=None, default_root_dir=folder)
    with redirect_stdout(io.StringIO()):
        Artifacts(str(folder)).write(done, trainer)
    write_traces(folder / "traces.jsonl", traces(2))
    return {
        "results.json": Kind(folder / "results.json", lambda: _read_results(folder)),
        "traces.jsonl": Kind(folder / "traces.jsonl", lambda: list(read_traces(folder / "traces.jsonl"))),
    }


def _read_results(folder: Path) -> list[Any]:
    """The results that a report shows; one that it leaves out is noticed by the line that says so."""
    found = find_sources([folder])
    if found.skipped:
        raise UserError(found.skipped[0])
    return [one.record for one in found.results]


def conversions(folder: Path) -> dict[str, Kind]:
    """Every file of a converted GGUF file; damage is noticed by converting again."""
    os.environ["RETRIEVAL_HEADS_CACHE"] = str(folder / "cache")
    gguf = write_gguf(folder / "tiny.gguf")
    cached = converted(gguf)

    def read() -> Any:
        with patch("extract.llm.gguf._convert", side_effect=UserError("converted again")):
            return json.loads((converted(gguf) / "source.json").read_bytes())

    return {f"cache, {file.name}": Kind(file, read) for file in sorted(cached.iterdir())}


MAKERS = (checkpoints, exports, trials, stores, results, conversions)


def changed(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """Without end, the bytes with one of them changed: a bit of it, or to any other value."""
    while True:
        for bit in (True, False):
            place = rng.randrange(len(data))
            damaged = bytearray(data)
            damaged[place] ^= 1 << rng.randrange(8) if bit else rng.randrange(1, 256)
            yield bytes(damaged)


def count_flips(kind: Kind, changes: int, seed: int = 0) -> Count:
    """Change a file so many times, one byte each, and read it after each change."""
    data, content, count = kind.file.read_bytes(), repr(kind.read()), Count(changes)
    spare = shutil.copytree(kind.file.parent, kind.file.parent.with_suffix(".spare"))
    for _, damaged in zip(range(changes), changed(data, random.Random(seed)), strict=False):
        kind.file.write_bytes(damaged)
        try:
            same = repr(kind.read()) == content
        except UserError:
            pass
        except Exception:
            count.errors += 1
        else:
            count.equal += same
            count.unnoticed += not same
        shutil.copytree(spare, kind.file.parent, dirs_exist_ok=True)  # a damaged conversion is removed as a whole
    shutil.rmtree(spare)
    return count


def kinds(folder: Path) -> dict[str, Kind]:
    """All kinds of files, made below a folder."""
    found: dict[str, Kind] = {}
    for maker in MAKERS:
        (folder / maker.__name__).mkdir()
        found |= maker(folder / maker.__name__)
    return found


def main(changes: int) -> int:
    """Print a line for each kind; the number of changes that were read as other content or gave another error."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    missed = 0
    with tempfile.TemporaryDirectory() as temporary, patch("os.fsync"):
        for name, kind in kinds(Path(temporary)).items():
            count = count_flips(kind, changes)
            missed += count.unnoticed + count.errors
            print(
                f"{name:<32} {changes} changes: {count.unnoticed} unnoticed, {count.equal} read as equal, "
                f"{count.errors} other errors",
                flush=True,
            )
    return missed


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)))

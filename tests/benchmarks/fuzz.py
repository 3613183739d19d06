"""Random configurations and files through the command line: every exit code must be 0 or 2.

python -m tests.benchmarks.fuzz [--examples N] [--groups NAME …]

The hub is switched off: a record may name a model of it, and its client tries again for half a minute.
"""

import argparse
import contextlib
import copy
import io
import json
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from probe.cli.main import main
from tests.helpers.bad_input import DYNAMISM, FIT, QA, TEST, resign, workshop
from tests.helpers.result_records import RECORDS, traces
from tests.helpers.tokenizers import byte_level, fast

NUMBERS = st.integers(-3, 40) | st.integers(2**31, 2**70) | st.floats() | st.just(10**400)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=6) | st.sampled_from(["\ud800", "~", "0-1", "[/b]"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = {
    FIT: (
        *(f"model.init_args.{name}" for name in ("lr", "factor", "dropout", "hidden", "patience", "resamples", "seed")),
        *(f"model.init_args.{name}" for name in ("gamma_neg", "gamma_pos", "clip", "reduction", "activation")),
        *(f"data.init_args.{name}" for name in ("batch_size", "offset", "seed", "target", "test_store", "verify")),
        *(f"data.init_args.split.{name}" for name in ("by", "fractions", "seed", "limit")),
        *(f"trainer.{name}" for name in ("log_every_n_steps", "gradient_clip_val", "limit_train_batches")),
        *(f"trainer.{name}" for name in ("limit_val_batches", "accumulate_grad_batches", "num_sanity_val_steps")),
        *(f"trainer.{name}" for name in ("val_check_interval", "check_val_every_n_epoch", "overfit_batches")),
        *(
            "model",
            "data",
            "trainer.callbacks",
            "checkpoint",
            "artifacts",
            "trainer.profiler",
            "seed_everything",
            "ckpt_path",
            "store",
            "llm",
        ),
    ),
    DYNAMISM: (
        *(f"model.init_args.{name}" for name in ("static_top", "static_sizes", "static", "threshold", "top", "sample")),
        *(f"data.init_args.{name}" for name in ("target", "evaluation", "hidden", "batch_size", "split")),
    ),
}
QUESTION = {"id": "1", "question": "Who?", "answer": "Al", "context": "Al came.\n\nBo left.", "evidence": [[0, 8]]}
HOTPOT = {
    **{"_id": "1", "question": "Who?", "answer": "Al", "context": [["A", ["Al came.", "Bo left."]]]},
    "supporting_facts": [["A", 0]],
}
QUIET = ("--trainer.logger", "false", "--trainer.default_root_dir", "logs", "--trainer.enable_model_summary", "false")
EXPERIMENT = (*QUIET, "--trainer.callbacks", "[{class_path: probe.Artifacts, init_args: {folder: out}}]")


def places(record: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Path of every value within plain values."""
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    return [*([path] if path else []), *(place for key, value in items for place in places(value, (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, record: Any) -> Any:
    """Plain values with one to three of them replaced, removed or repeated."""
    record = copy.deepcopy(record)
    for _ in range(draw(st.integers(1, 3))):
        found = places(record)
        if not found:
            break
        *above, last = draw(st.sampled_from(found))
        inner = record
        for key in above:
            inner = inner[key]
        action = draw(st.sampled_from(["replace", "replace", "remove", "repeat"]))
        if action == "remove":
            del inner[last]
        elif action == "repeat" and isinstance(inner, list):
            inner.append(inner[last])
        else:
            inner[last] = draw(VALUES)
    return record


class Fuzz:
    """Examples of each group in one folder, and what they gave.

    Args:
        folder: An empty one, the working folder of the commands.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = workshop(folder)
        self.codes: Counter[tuple[str, str]] = Counter()
        self.failures: dict[str, str] = {}
        self.checkpoint = torch.load(folder / "ckpts" / "best.ckpt", weights_only=True)
        self._tiny_llm(folder / "llm")

    @staticmethod
    def _tiny_llm(folder: Path) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        tokenizer = fast(byte_level())
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **sizes)).save_pretrained(
            folder
        )
        tokenizer.save_pretrained(folder)

    def run(self, group: str, example: Any, *command: object) -> None:
        """Run a command; an exit code other than 0 and 2 is a failure."""
        text, error = io.StringIO(), ""
        with contextlib.redirect_stderr(text), contextlib.redirect_stdout(io.StringIO()):
            try:
                code: Any = main([str(word) for word in command])
            except BaseException as raised:
                code, error = type(raised).__name__, str(raised)
        self.codes[group, str(code)] += 1
        if code not in (0, 2) or "Traceback" in text.getvalue():
            said = re.sub(r"the traceback is in \S+", "", (text.getvalue() + error)[-600:])
            key, line = re.sub(r"[\d.]+", "#", said)[:200], f"{group}: {example!r:.400} -> {code}: {said}"
            if key not in self.failures:
                print(line, flush=True)  # at once: a run that is stopped has said what it found
            self.failures.setdefault(key, line)
        for name in ("logs", "out", "out.html", "out.json"):
            path = self.folder / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def config(self, data: st.DataObject) -> None:
        """One to three values of a configuration."""
        command = data.draw(st.sampled_from([FIT, DYNAMISM]))
        chosen = data.draw(st.dictionaries(st.sampled_from(KEYS[command]), VALUES, min_size=1, max_size=3))
        words = [f"--{key}={json.dumps(value)}" for key, value in chosen.items()]
        self.run("config", words, *command, *(QUIET if command is FIT else EXPERIMENT), *words)

    def config_file(self, data: st.DataObject) -> None:
        """A configuration file of random values."""
        content = data.draw(VALUES.map(json.dumps) | st.text(max_size=30) | st.binary(max_size=30))
        raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        (self.folder / "c.yaml").write_bytes(raw)
        self.run("config_file", content, *FIT, "-c", "c.yaml", *QUIET, "--trainer.limit_train_batches", 1)

    def manifest(self, data: st.DataObject) -> None:
        """A store whose manifest is changed and hashed again."""
        store = self.folder / "m"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(self.folder / "s", store)
        manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
        del manifest["sha256"]
        new = data.draw(changed(manifest))

        def replace(old: dict[str, Any]) -> None:
            old.clear()
            old.update(new)

        with contextlib.suppress(UnicodeEncodeError):  # what cannot be written is no manifest
            resign(store, replace)
        for command in (("ranking", "m", "out.json"), ("report", "m", "--output", "out.html")):
            self.run("manifest", new, *command)

    def ranking(self, data: st.DataObject) -> None:
        """A ranking in each of the formats."""
        suffix = data.draw(st.sampled_from(["json", "yaml", "tsv"]))
        good = [{"0-0": [0.5, 1], "1-2": [1]}, [["0-0", 1.0], ["0-1", 0.5]], {"attn_head_set": "0-0,1-1"}, ["L0H1"]]
        content = data.draw(
            st.sampled_from(good).flatmap(changed).map(json.dumps) | st.text(max_size=30) | VALUES.map(json.dumps)
        )
        (self.folder / f"r.{suffix}").write_bytes(content.encode("utf-8", "surrogatepass"))
        self.run("ranking", content, "overlap", f"r.{suffix}", "s", "--n", 1)

    def saved_probe(self, data: st.DataObject) -> None:
        """A checkpoint with changed fields."""
        plain = {key: value for key, value in self.checkpoint.items() if key in ("probe", "hyper_parameters")}
        new = {**self.checkpoint, **data.draw(changed(plain))}
        torch.save(new, self.folder / "c.ckpt")
        self.run("checkpoint", {key: new.get(key) for key in plain}, *TEST, *EXPERIMENT, "--ckpt_path", "c.ckpt")

    def questions(self, data: st.DataObject) -> None:
        """A file of questions."""
        kind, good = data.draw(st.sampled_from([("JsonLines", QUESTION), ("HotpotQA", HOTPOT)]))
        records = data.draw(st.lists(changed(good) | st.just(good) | VALUES, min_size=1, max_size=3))
        lines = [json.dumps(one) for one in records]
        text = "\n".join(lines) if kind == "JsonLines" else "[" + ",".join(lines) + "]"
        (self.folder / "q.json").write_text(text, encoding="utf-8")
        source = {"class_path": f"extract.{kind}", "init_args": {"files": "q.json"}}
        task = "--data.init_args.task.init_args"
        options = (f"{task}.source", json.dumps(source), f"{task}.budget", 1, "--llm.init_args.name", "llm")
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        self.run("questions", records, *QA, *QUIET, "--trainer.accelerator", "cpu", *options)

    def results(self, data: st.DataObject) -> None:
        """Results and traces of a report, and a trace."""
        folder = self.folder / "runs"
        folder.mkdir(exist_ok=True)
        record = data.draw(st.sampled_from(list(RECORDS.values())).flatmap(changed))
        lines = data.draw(changed(traces(1)))
        (folder / "results.json").write_text(json.dumps(record), encoding="utf-8")
        (folder / "traces.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        self.run("results", record, "report", "runs", "--output", "out.html")
        self.run("results", lines, "trace", "runs/traces.jsonl")


GROUPS: dict[str, Callable[[Fuzz, st.DataObject], None]] = {
    one.__name__: one
    for one in (
        Fuzz.config,
        Fuzz.config_file,
        Fuzz.manifest,
        Fuzz.ranking,
        Fuzz.saved_probe,
        Fuzz.questions,
        Fuzz.results,
    )
}


def fuzz(folder: Path, examples: int, groups: Sequence[str] = tuple(GROUPS), derandomize: bool = False) -> Fuzz:
    """Run random examples of each group.

    Args:
        folder: An empty one.
        examples: Of each group.
        groups: Their names.
        derandomize: The same examples every time.

    """
    done, before = Fuzz(folder), Path.cwd()
    chosen = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=derandomize,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    os.chdir(folder)
    try:
        for name in groups:
            _examiner(name, done, chosen)()
    finally:
        os.chdir(before)
    return done


def _examiner(name: str, done: Fuzz, chosen: settings) -> Callable[[], None]:
    """A property of hypothesis that runs examples of a group."""

    @chosen
    @given(st.data())
    def examine(data: st.DataObject) -> None:
        GROUPS[name](done, data)

    return examine


def report(done: Fuzz, seconds: float) -> None:
    """Print exit codes by group."""
    for (group, code), count in sorted(done.codes.items()):
        print(f"{group:12} exit code {code}: {count}")
    print(f"{done.codes.total()} commands in {seconds:.0f} s, {len(done.failures)} failures")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    arguments = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        report(fuzz(Path(temporary), arguments.examples, arguments.groups), time.monotonic() - begun)

"""`lightning attribute`: lines that are left out, resuming, several processes, locks, signals, settings."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jsonargparse
import pytest

from extract.stopping import STOP
from extract.utils import FolderLock
from probe.attribution.citations import AttributedAnswer, Attributor
from probe.cli.config.config_text import bound_texts
from tests.conftest import Run
from tests.helpers.attributed_answers import example

OSLO = ["Ada sings in Oslo.", {"title": "Bo", "text": "Bo went to Paris. He left early."}]
LINES = (
    {"id": "first", "question": "Where did Bo go?", "documents": OSLO},
    {"id": "without", "question": "x"},
    {"question": "Who sings?", "documents": OSLO, "answer": "Ada sings in Oslo."},
    {"id": "blank", "question": "x", "documents": [" "]},
    {"id": "long", "question": "x", "documents": ["word " * 9000]},
    {"id": "empty", "question": "x", "documents": OSLO, "answer": ""},
    {"id": "last", "question": "Who?", "documents": OSLO},
)
USABLE = [1, 3, 7]
Attribute = Callable[..., tuple[int, str]]


def write(file: Path, lines: Any = LINES) -> Path:
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\nnot json\n")
    return file


@pytest.fixture(autouse=True)
def _unsafe_again() -> Iterator[None]:
    """What `--safe` allows holds for a process; here the next test is another one."""
    with patch.dict(jsonargparse._common.parsing_settings):
        yield
    bound_texts(safe=False)


@pytest.fixture
def attribute(run: Run, tiny_llm_folder: Path, tmp_path: Path) -> Attribute:
    """The command on the lines above, with the tiny LLM."""
    file = write(tmp_path / "questions.jsonl")

    def call(*more: object) -> tuple[int, str]:
        options = ["--llm.name", tiny_llm_folder, "--budget", 3, "--device", "cpu"]
        return run("attribute", file, "--output", tmp_path / "out", *options, *more)

    return call


def results(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "citations.jsonl").read_text().splitlines()]


def test_usable_lines_are_attributed_and_the_others_named(attribute: Attribute, tmp_path: Path) -> None:
    code, said = attribute()
    assert code == 0
    for reason, name in (
        ("no list 'documents'", "without"),
        ("document 1 has no text", "blank"),
        ("not JSON", "line 8"),
    ):
        assert any(reason in line and name in line for line in said.splitlines()), said
    assert "field 'answer' is empty (empty)" in said
    assert "exceed the model's context" in said and "(long)" in said
    found = results(tmp_path / "out")
    assert [one["number"] for one in found] == USABLE
    assert [one["id"] for one in found] == ["first", "questions.jsonl, line 3", "last"]
    assert found[1]["answer"] == "Ada sings in Oslo."
    for number in USABLE:
        page = (tmp_path / "out" / f"{number:06d}.html").read_text()
        whole = json.loads((tmp_path / "out" / f"{number:06d}.json").read_text())
        assert page.startswith("<!doctype html>")
        assert "".join(token["text"] for token in whole["tokens"]) == whole["answer"]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Questions that are attributed from here on, as the slow part would; none is run."""
    asked: list[str] = []

    def answer(_: Attributor, prompt: Any, given: str | None = None) -> AttributedAnswer:
        asked.append(prompt.question)
        return example()

    monkeypatch.setattr(Attributor, "answer", answer)
    return asked


def test_finished_lines_are_skipped_and_changed_ones_run_again(
    attribute: Attribute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = counted(monkeypatch)
    attribute()
    assert asked == ["Where did Bo go?", "Who sings?", "Who?"]
    attribute()
    assert len(asked) == 3
    write(tmp_path / "questions.jsonl", [*LINES[:6], {**LINES[6], "question": "Who else?"}, LINES[0]])
    attribute()
    assert asked[3:] == ["Who else?", "Where did Bo go?"]
    assert [one["number"] for one in results(tmp_path / "out")] == [1, 3, 7, 8]
    code, said = attribute("--budget", 4)
    assert code == 2 and "budget: 3 there, 4 here" in said and "--output" in said


def test_processes_that_share_a_file_write_the_same_citations_as_one(
    attribute: Attribute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = counted(monkeypatch)
    attribute()
    whole = (tmp_path / "out" / "citations.jsonl").read_bytes()
    (tmp_path / "out").rename(tmp_path / "one")
    for share, questions in (("3/3", ["Who sings?"]), ("1/3", ["Where did Bo go?", "Who?"])):
        first = len(asked)
        attribute("--share", share)
        assert asked[first:] == questions
    assert (tmp_path / "out" / "citations.jsonl").read_bytes() == whole
    code, said = attribute("--share", "4/3")
    assert code == 2 and "--share 4/3" in said


def test_a_second_run_of_the_same_share_is_refused(attribute: Attribute, tmp_path: Path) -> None:
    (tmp_path / "out" / "lines-1-of-1").mkdir(parents=True)
    lock = FolderLock(tmp_path / "out" / "lines-1-of-1", "--output")
    lock.acquire()
    record = json.loads(lock.file.read_text())
    lock.release()
    lock.file.write_text(json.dumps({**record, "system": "another machine"}))
    code, said = attribute()
    assert code == 2 and "is being written by another run" in said and "another --output" in said


def test_a_signal_is_obeyed_after_the_answer(
    attribute: Attribute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = counted(monkeypatch)
    before = Attributor.answer

    def stop(attributor: Attributor, prompt: Any, given: str | None = None) -> AttributedAnswer:
        STOP.received(signal.SIGTERM)
        return before(attributor, prompt, given)

    with monkeypatch.context() as patch:
        patch.setattr(Attributor, "answer", stop)
        code, said = attribute()
    assert code == 143 and "go on with: lightning attribute" in said
    assert asked == ["Where did Bo go?"]
    STOP.reset()
    attribute()
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "os.system"], "not correspond to a subclass of AttributionMethod"),
        (["--method", "probe.attribution.methods.Nothing"], "Nothing"),
        (["--unit", "page"], "page"),
        (["--ablations", "-1"], "--ablations"),
        (["--device", "abacus"], "--device abacus"),
        (["--safe", "--llm.trust_remote_code", "true"], "trust_remote_code"),
        (["--safe", "--method", "tests.helpers.reference.Anything"], "--safe"),
        (["--safe", "--llm", '{"class_path": "os.system"}'], "--safe"),
        (["--method", "LeaveOneOut", "--ablations", "2"], "LeaveOneOut needs ablated runs itself"),
    ],
)
def test_wrong_options_are_one_line(attribute: Attribute, more: list[str], message: str) -> None:
    code, said = attribute(*more)
    assert code == 2
    assert message in said.splitlines()[-1]


def test_a_file_without_a_usable_line_is_refused(run: Run, tiny_llm_folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "bad.jsonl", [LINES[1], LINES[3]])
    code, said = run("attribute", file, "--output", tmp_path / "out", "--llm.init_args.name", tiny_llm_folder)
    assert code == 2
    assert len(said.splitlines()) == 1 and "no usable question" in said and "without" in said

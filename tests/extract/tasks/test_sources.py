"""Sources of questions: real files and their flaws, records of one's own, synthetic ones; bad input in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import UserError
from extract.tasks.sources import HotpotQA, JsonLines, Record, SyntheticQA
from extract.tasks.sources.hotpotqa import official_record
from extract.tasks.sources.jsonl import split_passages
from tests.conftest import ROOT

DATA = ROOT.parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the shared HotpotQA files are not here")
DEV = DATA / "hotpotqa" / "dev_distractor_200.json"
TRAIN = [DATA / "hotpotqa" / "train_100.json", DATA / "2wikimultihopqa" / "train_494.json"]


def record(**changes: Any) -> dict[str, Any]:
    good = {
        "_id": "q1",
        "question": "Where was A born?",
        "answer": "B",
        "type": "bridge",
        "level": "easy",
        "context": [["A", ["A was born in B.", " A is tall."]], ["C", ["C is far."]]],
        "supporting_facts": [["A", 0]],
    }
    return {key: value for key, value in {**good, **changes}.items() if value is not ...}


def hotpot(tmp_path: Path, *records: Any) -> HotpotQA:
    (tmp_path / "q.json").write_text(json.dumps(list(records)))
    return HotpotQA(str(tmp_path / "q.json"))


def evidence_texts(one: Record) -> list[str]:
    return [passage.text[a:b] for passage in one.passages for a, b in passage.evidence]


@real
def test_every_dev_question_parses_with_its_facts() -> None:
    loaded = HotpotQA(str(DEV)).load()
    raw = {item["_id"]: item for item in json.loads(DEV.read_text())}
    assert len(loaded.records) == 200
    assert not loaded.rejected
    for one in loaded.records:
        item = raw[one.id]
        paragraphs = dict(item["context"])
        facts = {paragraphs[title][number].strip() for title, number in item["supporting_facts"]}
        assert set(evidence_texts(one)) == facts
        assert len(one.passages) == len(item["context"])


@real
def test_training_files_parse_and_repeated_paragraphs_are_named() -> None:
    loaded = HotpotQA([str(path) for path in TRAIN]).load()
    assert len(loaded.records) == 594
    assert not loaded.rejected
    assert {what: len(ids) for what, ids in loaded.repaired.items()} == {"repeated paragraph used once": 23}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"supporting_facts": [["A", 0], ["A", 7]]}, "sentence index is out of range"),
        ({"supporting_facts": [["A", -1]]}, "sentence index is out of range"),
        ({"supporting_facts": [["Z", 0]]}, "missing title"),
        ({"supporting_facts": []}, "no supporting fact"),
        ({"context": [["A", ["", "x"]]]}, "empty sentence"),
        ({"context": [["A", ["x"]], ["A", ["y"]]]}, "title of two paragraphs"),
    ],
)
def test_records_of_uncertain_evidence_are_left_out_by_id(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    loaded = hotpot(tmp_path, record(), record(_id="bad", **changes)).load()
    assert [one.id for one in loaded.records] == ["q1"]
    ((why, ids),) = loaded.rejected.items()
    assert reason in why
    assert ids == ["bad"]


def test_flaws_that_leave_the_evidence_intact_are_repaired(tmp_path: Path) -> None:
    twice = record(context=[["A", ["A was born in B."]], ["A", ["A was born in B."]], ["C", []]], answer="yes")
    loaded = hotpot(tmp_path, twice, record()).load()
    (one,) = loaded.records
    assert [passage.title for passage in one.passages] == ["A"]
    assert loaded.repaired == {"repeated paragraph used once": ["q1"]}
    assert loaded.rejected == {"repeated id": ["q1"]}
    other = record(_id="q2", context=[["A", ["A was born in B."]], ["D", ["x"]], ["D", ["y"]]])
    assert len(hotpot(tmp_path, other).load().records[0].passages) == 3


def test_sentences_are_joined_by_one_space(tmp_path: Path) -> None:
    (one,) = hotpot(tmp_path, record(supporting_facts=[["A", 1], ["C", 0]])).load().records
    assert one.passages[0].text == "A was born in B. A is tall."
    assert evidence_texts(one) == ["A is tall.", "C is far."]


def test_hub_records_take_the_official_shape(tmp_path: Path) -> None:
    row = record(_id=..., id="q1", context={"title": ["A"], "sentences": [["A was born in B."]]})
    row["supporting_facts"] = {"title": ["A"], "sent_id": [0]}
    assert evidence_texts(hotpot(tmp_path, official_record(row)).load().records[0]) == ["A was born in B."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "holds no list of records"),
        ("[]", "holds no list of records"),
    ],
)
def test_bad_hotpotqa_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "q.json").write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        HotpotQA(str(tmp_path / "q.json")).load()
    assert "\n" not in str(raised.value)
    assert "q.json" in str(raised.value)


@pytest.mark.parametrize(
    ("raw", "reason", "name"),
    [
        (3, "a int instead of an object", "q.json, record 1"),
        (record(_id="x", answer=...), "no field 'answer'", "x"),
        (record(_id=...), "no field '_id'", "q.json, record 1"),
        (record(_id="x", answer=" "), "field 'answer' is empty", "x"),
        (record(_id="x", answer=3), "field 'answer' is a int instead of text", "x"),
        (record(_id="x", question="\ud800"), "field 'question' is not Unicode text", "x"),
        (record(_id="x", level="\ud800"), "field 'level' is not Unicode text", "x"),
        (record(_id="x", context=[]), "field 'context' is empty", "x"),
        (record(_id="x", context=[["A", [" "]]]), "field 'context' is empty", "x"),
        (record(_id="x", context=[["A", ["\udfff"]]]), "field 'context' is not Unicode text", "x"),
        (record(_id="x", context="A was"), "no list of [title", "x"),
        (record(_id="x", context=...), "no field 'context'", "x"),
        (record(_id="x", supporting_facts=...), "no list 'supporting_facts'", "x"),
        (record(_id="x", supporting_facts=[["A"]]), "no [title, sentence index]", "x"),
    ],
)
def test_malformed_records_are_left_out_by_name(tmp_path: Path, raw: Any, reason: str, name: str) -> None:
    loaded = hotpot(tmp_path, record(), raw).load()
    assert [one.id for one in loaded.records] == ["q1"]
    ((why, names),) = loaded.rejected.items()
    assert reason in why and [one.removeprefix(f"{tmp_path}/") for one in names] == [name]


def test_folders_and_missing_files(tmp_path: Path) -> None:
    for kind in (HotpotQA, JsonLines):
        with pytest.raises(UserError, match="is a folder; give the file in it"):
            kind(str(tmp_path)).load()
        with pytest.raises(UserError, match=r"no file .*gone\.json"):
            kind([str(tmp_path / "gone.json")]).load()
    (tmp_path / "latin.json").write_bytes(b"[\xff]")
    with pytest.raises(UserError, match="not UTF-8"):
        HotpotQA(str(tmp_path / "latin.json")).load()


LINE = {"id": "1", "question": "Who?", "answer": "Al", "context": "Al came.\n\nBo left.", "evidence": [[0, 8]]}


def lines(tmp_path: Path, *records: Any) -> JsonLines:
    (tmp_path / "q.jsonl").write_text("\n".join(json.dumps(item) for item in records) + "\n\n")
    return JsonLines(str(tmp_path / "q.jsonl"))


def test_json_lines(tmp_path: Path) -> None:
    loaded = lines(tmp_path, LINE, {**LINE, "id": "2", "evidence": [[4, 12]]}, LINE).load()
    first, second = loaded.records
    assert [passage.text for passage in first.passages] == ["Al came.", "Bo left."]
    assert evidence_texts(first) == ["Al came."]
    assert evidence_texts(second) == ["ame.\n\nBo"]  # evidence is never divided
    assert loaded.rejected == {"repeated id": ["1"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evidence": [[0, 99]]}, "not within the context"),
        ({"evidence": [[5, 5]]}, "not within"),
        ({"evidence": [[8, 10]]}, "nothing but space"),
        ({"evidence": [[True, 3]]}, "no [start, end] of characters"),
        ({"evidence": []}, "no list 'evidence'"),
        ({"context": "  "}, "field 'context' is empty"),
        ({"answer": ""}, "field 'answer' is empty"),
        ({"question": None}, "field 'question' is a NoneType"),
        ({"context": "\ud800 came"}, "field 'context' is not Unicode text"),
    ],
)
def test_malformed_lines_are_left_out_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    loaded = lines(tmp_path, {**LINE, "id": "bad", **changes}, LINE).load()
    assert [one.id for one in loaded.records] == ["1"]
    ((reason, names),) = loaded.rejected.items()
    assert message in reason and names == ["bad"]


def test_a_line_that_is_not_json_is_left_out_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps(LINE) + "\nnonsense\n" + "[" * 10**5 + "\n")
    loaded = JsonLines(str(tmp_path / "q.jsonl")).load()
    assert [one.id for one in loaded.records] == ["1"]
    assert loaded.rejected == {"not JSON": ["q.jsonl, line 2", "q.jsonl, line 3"]}
    (tmp_path / "q.jsonl").write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        JsonLines(str(tmp_path / "q.jsonl")).load()


@given(st.lists(st.sampled_from(["a", "\n", "b c"]), min_size=1, max_size=15).map("".join), st.data())
def test_passages_join_to_the_context_and_keep_the_evidence(context: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(context)), max_size=6))
    spans = [(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False) if a < b and context[a:b].strip()]
    passages = split_passages(context, sorted(spans))
    assert "\n\n".join(passage.text for passage in passages) == context
    kept = [passage.text[a:b] for passage in passages for a, b in passage.evidence]
    assert sorted(kept) == sorted(context[a:b] for a, b in spans)


def test_synthetic_questions_are_fixed_by_seed_and_number_and_need_both_facts() -> None:
    with pytest.raises(UserError, match="decoys 1000000"):
        SyntheticQA(5, decoys=10**6).load()
    few, many = SyntheticQA(5).load().records, SyntheticQA(50, decoys=1).load().records
    assert many[:5] == few
    assert SyntheticQA(5, seed=1).load().records != few
    assert len({one.question for one in many}) == 50
    for one in many:
        first, second = sorted(evidence_texts(one), key=lambda text: one.answer in text)
        assert first.split(" is ")[0] not in one.answer
        town = second.split(" is a town")[0]
        assert town in first
        assert second == f"{town} is a town in the province of {one.answer}."
        assert one.answer not in one.question
        assert len(one.passages) == 4
        assert sum(one.answer in passage.text for passage in one.passages) == 1
    with pytest.raises(UserError, match="count 0"):
        SyntheticQA(0).load()

"""Sources of questions: real files and their flaws, records of one's own, synthetic ones; bad input in one line."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.errors import UserError
from extract.tasks.sources import HotpotQA, JsonLines, Record, SyntheticQA, json_records
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
        ("{", "no usable question; questions left out: 1, not JSON .*line 1"),
        ("{}", "no usable question; questions left out: 1, no field '_id' .*line 1"),
        ("[]", "holds no list of records"),
        ("[{}", "record 0, is not JSON .*cut off"),
        ("[{},]", "record 1, is not JSON"),
        ('[{"a": "', "record 0, is not JSON"),
        ("[" * 10**5, "record 0, is not JSON .*levels"),
        ("[{}] []", "is not JSON .*more text"),
        (" \n", "is empty"),
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


JSON_TEXT = st.text(max_size=6) | st.sampled_from(["", "\ud800", '"]},{"', "針\u2028", "\\", "x" * 40])
JSON_VALUES = st.one_of(st.none(), st.integers(), st.just(10**400), st.floats(), JSON_TEXT, st.lists(st.integers()))


def changed(good: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Records as they are, with another value of a field, without one, or other values."""
    with_other = st.tuples(st.sampled_from(sorted(good)), JSON_VALUES).map(lambda pair: {**good, pair[0]: pair[1]})
    without = st.sampled_from(sorted(good)).map(lambda key: {k: v for k, v in good.items() if k != key})
    ids = st.integers(0, 3).map(lambda n: {**good, "id" if "id" in good else "_id": f"q{n}"})
    return st.one_of(st.just(good), ids, with_other, without, JSON_VALUES)


def outcome(source: HotpotQA | JsonLines) -> Any:
    """Records, and how many are left out or repaired by reason; or why there are none."""
    try:
        loaded = source.load()
    except UserError:
        return "refused"
    return loaded.records, *({k: len(v) for k, v in one.items()} for one in (loaded.rejected, loaded.repaired))


@pytest.mark.parametrize("number", ["0.0", "1e5", "1E+5", "-2.5e-3", "12"])
def test_a_number_that_two_reads_of_a_list_share_is_one_item(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "q.json"
    file.write_text(f"[{number}, {json.dumps(LINE)}, {number}]", encoding="utf-8")
    for size in range(1, 12):
        monkeypatch.setattr(json_records, "CHUNK", size)
        loaded = JsonLines(str(file)).load()
        assert (len(loaded.records), sum(map(len, loaded.rejected.values()))) == (1, 2)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 7])
def test_a_first_line_that_is_a_list_is_a_line_however_little_is_read_at_once(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_records, "CHUNK", chunk)
    (tmp_path / "q.jsonl").write_text(f"[0]\n\n{json.dumps(LINE)}\n", encoding="utf-8")
    loaded = JsonLines(str(tmp_path / "q.jsonl")).load()
    assert (len(loaded.records), sum(map(len, loaded.rejected.values()))) == (1, 1)


@pytest.mark.parametrize("kind", [HotpotQA, JsonLines])
@given(data=st.data())
@settings(max_examples=25)
def test_a_list_and_lines_of_the_same_records_are_the_same_questions(
    kind: type[HotpotQA | JsonLines], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    records = data.draw(st.lists(changed(record() if kind is HotpotQA else LINE), min_size=1, max_size=5))
    folder, space = tmp_path_factory.mktemp("forms"), data.draw(st.sampled_from(["", " ", "\n\n", "\r\n\t"]))
    ascii_only, mark = data.draw(st.booleans()), data.draw(st.sampled_from(["", "\ufeff"]))
    texts = [json.dumps(one, ensure_ascii=ascii_only or "\\ud8" in json.dumps(one)) for one in records]
    indented = json.dumps(records, indent=data.draw(st.sampled_from([None, 1])))
    forms = {
        "lines": mark + "".join(f"{text}{space or chr(10)}\n" for text in texts),
        "list": mark + f"{space}[{space}" + f"{space},{space}".join(texts) + f"{space}]{space}",
        "dumped": indented,
    }
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_records, "CHUNK", data.draw(st.sampled_from([3, 50, 2**20])))
        for name, text in forms.items():
            (folder / name).write_bytes(text.encode())
            found[name] = outcome(kind(str(folder / name)))
    assert found["list"] == found["lines"] == found["dumped"]
    if found["list"] != "refused":
        usable, left_out, _ = found["list"]
        assert len(usable) + sum(left_out.values()) == len(records)  # each is used or counted


@pytest.mark.parametrize("kind", [HotpotQA, JsonLines])
def test_lines_that_cannot_be_read_are_left_out_and_counted(
    kind: type[HotpotQA | JsonLines], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_records, "MOST_RECORD", 600)
    good = json.dumps(record() if kind is HotpotQA else LINE).encode()
    odd = [b"[1, 2]", b'{"cut', b"\xff", b'"' + b"x" * 2000 + b'"', b"[" * 500]
    (tmp_path / "q.jsonl").write_bytes(b"\n".join([*odd, b"", good]))
    loaded = kind(str(tmp_path / "q.jsonl")).load()
    assert len(loaded.records) == 1
    assert {why: [name.rpartition("/")[2] for name in names] for why, names in loaded.rejected.items()} == {
        "a list instead of an object with question, answer and context": ["q.jsonl, line 1"],
        "not JSON": ["q.jsonl, line 2", "q.jsonl, line 5"],
        "not UTF-8 text": ["q.jsonl, line 3"],
        "longer than 600 bytes": ["q.jsonl, line 4"],
    }


def test_a_long_list_is_read_within_the_memory_of_its_records(tmp_path: Path) -> None:
    """Of records that are left out, none stays in memory: neither the file's text nor its values."""
    filler = json.dumps({"_id": "x", "question": "?" * 20_000})
    (tmp_path / "q.json").write_text("[" + ",".join([json.dumps(record()), *[filler] * 1500]) + "]")  # 30 MB
    tracemalloc.start()
    loaded = HotpotQA(str(tmp_path / "q.json")).load()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(loaded.records) == 1
    assert most < 10 * 2**20


def test_a_file_without_a_usable_question_is_refused_also_beside_others(tmp_path: Path) -> None:
    good = hotpot(tmp_path, record())
    (tmp_path / "other.json").write_text(json.dumps(LINE))
    with pytest.raises(UserError, match=r"other\.json: no usable question; questions left out: 1, field 'context'"):
        HotpotQA([str(good.files), str(tmp_path / "other.json")]).load()
    assert HotpotQA([str(good.files), str(good.files)]).load().rejected == {"repeated id": ["q1"]}


def test_rows_of_the_hub_saved_as_json_lines_are_read(tmp_path: Path) -> None:
    row = record(_id=..., id="q1", context={"title": ["A"], "sentences": [["A was born in B."]]})
    row["supporting_facts"] = {"title": ["A"], "sent_id": [0]}
    uneven = {**row, "id": "q2", "supporting_facts": {"title": ["A"], "sent_id": []}}
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(uneven))
    loaded = HotpotQA(str(tmp_path / "q.jsonl")).load()
    assert [evidence_texts(one) for one in loaded.records] == [["A was born in B."]]
    assert loaded.rejected == {"no list 'supporting_facts'": ["q2"]}


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

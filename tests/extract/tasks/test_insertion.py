"""The place of a needle: after a sentence of any script, at a depth that is measured and not the requested one."""

from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.llm import LLM
from extract.tasks import NIAH, Sample, load_haystack
from extract.tasks.insertion import boundary_of, insert_needle
from tests.extract.tasks.test_sources import DATA
from tests.helpers.tokenizers import KINDS, fast

words = st.lists(st.sampled_from(["ab", "c", "d.", "e!", "f?", "3.5", "g;"]), min_size=1, max_size=25)
depths = st.floats(0, 100, allow_nan=False)


def places(parts: list[str]) -> list[tuple[int, int]]:
    """Characters and tokens before each place between sentences: a word is a token, the first place the beginning."""
    ends = list(accumulate(len(part) + 1 for part in parts))
    return [(0, 0), *((end - 1, n + 1) for n, end in enumerate(ends) if parts[n][-1] in ".!?")]


@given(words, depths)
@settings(max_examples=200)
def test_the_needle_steps_back_to_the_end_of_a_sentence(parts: list[str], depth: float) -> None:
    """Against a search over the words: the last place that is not deeper than requested."""
    context, ends = " ".join(parts), list(accumulate(len(part) + 1 for part in parts))
    found = insert_needle(context, "NEEDLE!", depth, [end - 1 for end in ends])
    wanted = round(len(parts) * depth / 100)
    at, tokens = max(place for place in places(parts) if place[1] <= wanted)
    before, after = found.text.split("NEEDLE!")
    assert (before.strip(), after.strip()) == (context[:at].strip(), context[at:].strip())
    assert found.depth == 100 * tokens / len(parts)
    assert 0 <= found.depth <= 100
    nearest = insert_needle(context, "NEEDLE!", depth, [end - 1 for end in ends], placement="nearest")
    assert abs(nearest.depth * len(parts) / 100 - wanted) <= min(abs(n - wanted) for _, n in places(parts)) + 1e-9


SCRIPTS = {
    "chinese": "今天天气很好。我们去公园散步！你喜欢吗？",
    "japanese": "今日は天気がいい。「散歩に行こう。」と言った。",
    "half width": "ｷｮｳﾊﾃﾝｷｶﾞｲｲ｡ｻﾝﾎﾟﾆｲｺｳ｡",
    "hindi": "यह एक वाक्य है। वह घर जाता है। ",
    "arabic": "هل تحب القراءة؟ نعم أحبها! ",
    "questions": "هل تحب القراءة؟ أين الكتاب؟ ",
    "urdu": "یہ ایک جملہ ہے۔ وہ گھر جاتا ہے۔ ",
    "amharic": "ይህ ዓረፍተ ነገር ነው። ወደ ቤት ይሄዳል። ",
    "armenian": "Սա նախադասություն է։ Նա տուն է գնում։ ",
    "burmese": "ဒါက ဝါကျတစ်ခုပါ။ သူအိမ်ပြန်တယ်။ ",
    "khmer": "នេះជាប្រយោគមួយ។ គាត់ទៅផ្ទះ។ ",
    "tibetan": "འདི་ཚིག་གྲུབ་ཅིག་རེད། ཁོ་ནང་ལ་འགྲོ། ",
    "sinhala": "මෙය වාක්‍යයකි෴ ඔහු ගෙදර යයි෴ ",
    "french": "«Bonjour.» Il dit: «Au revoir!» ",
    "german": "„Guten Tag.“ Er sagte: „Wir gehen!“ ",
}
WITHOUT = {
    "word": "one two three four five six seven eight nine ten ",
    "token": "今天天气很好我们去公园散步你喜欢吗",
    "few": "A beginning. " + "one two three four five six seven eight nine ten " * 30,
}


def needles(tmp_path: Path, tokenizer: Any, text: str, length: int, **options: Any) -> list[Sample]:
    (tmp_path / "hay.txt").write_text(text)
    grid = {"start": 0, "stop": 100, "step": 10}
    task = NIAH([length], grid, haystack=str(tmp_path / "hay.txt"), haystack_start="zero", **options)
    task.prepare(SimpleNamespace(tokenizer=tokenizer, chat={}, context_length=10**5, name="tiny"))  # type: ignore[arg-type]
    return [task.sample(index) for index in range(len(task))]


@pytest.mark.parametrize("script", SCRIPTS)
def test_sentences_of_all_scripts_end(llm: LLM, tmp_path: Path, script: str) -> None:
    """Every needle is after a sentence of the text, and at most one sentence before the depth that was requested."""
    text = SCRIPTS[script]
    marks = (*"。！？!.।؟۔።։။។།෴｡", "。」", ".»", "!»", ".“", "!“")
    longest = len(llm.tokenizer(text)["input_ids"])
    assert boundary_of(text * 20) == "sentence"
    for sample in needles(tmp_path, llm.tokenizer, text * 40, 20 * longest):
        assert sample.fields["boundary"] == "sentence"
        before = llm.tokenizer.decode(sample.ids).split(str(sample.fields["needle"]))[0].rstrip()
        assert before.endswith(marks) or sample.fields["depth"] == 0
        lag = float(sample.fields["requested_depth"]) - float(sample.fields["depth"])
        assert -1e-6 <= lag <= 100 / 20 * 1.1


@pytest.mark.parametrize("kind", WITHOUT)
def test_few_sentence_ends_do_not_hold_the_needle(llm: LLM, tmp_path: Path, kind: str) -> None:
    wanted = "token" if kind == "token" else "word"
    for sample in needles(tmp_path, llm.tokenizer, WITHOUT[kind] * 20, 300):
        assert sample.fields["boundary"] == wanted
        assert abs(float(sample.fields["requested_depth"]) - float(sample.fields["depth"])) < 2


@pytest.mark.filterwarnings("ignore:task depths")
@pytest.mark.parametrize("kind", KINDS)
def test_the_depth_is_the_share_of_the_haystacks_tokens_before_the_needle(tmp_path: Path, kind: str) -> None:
    """Against the prompt's text: what is before and after the needle, tokenized again, may differ by a token each."""
    tokenizer = fast(KINDS[kind]())
    for sample in needles(tmp_path, tokenizer, load_haystack("pydoc")[:20_000], 400):
        ((start, end),) = sample.evidence
        before = tokenizer.decode(sample.ids[:start]).split("Context:")[1].strip()
        after = tokenizer.decode(sample.ids[end:]).split("Question:")[0].strip()
        a, b = (len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (before, after))
        assert abs(a + b - 400) <= 4
        assert abs(float(sample.fields["depth"]) - 100 * a / (a + b)) < 100 * 2 / 400


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared haystack is not here")
def test_prompts_of_a_long_english_haystack_are_close_to_the_depths(llm: LLM, tmp_path: Path) -> None:
    text = (DATA / "haystack" / "moby_dick.txt").read_text()
    before, nearest = (
        [abs(float(s.fields["requested_depth"]) - float(s.fields["depth"])) for s in samples]
        for samples in (
            needles(tmp_path, llm.tokenizer, text, 4000),
            needles(tmp_path, llm.tokenizer, text, 4000, placement="nearest"),
        )
    )
    assert max(before) < 3
    assert sum(nearest) <= sum(before)


def test_cells_that_are_not_reached_are_reported_once(llm: LLM, tmp_path: Path) -> None:
    text = "A first sentence that is rather long, longer than most. " + "And a second one " * 12 + "ends here. "
    with pytest.warns(UserWarning, match="task depths") as caught:
        samples = needles(tmp_path, llm.tokenizer, text * 3, 60)
    grid = range(0, 101, 10)
    cells = [min(grid, key=lambda depth: abs(depth - float(sample.fields["depth"]))) for sample in samples]
    moved = [cell for cell, sample in zip(cells, samples, strict=True) if cell != sample.fields["requested_depth"]]
    assert len(caught) == 1
    assert f"{len(moved)} of 11 needles are in another cell" in str(caught[0].message)
    assert len(moved) > 5

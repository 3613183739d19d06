"""Multi-hop questions: prompts, spans, windows, teacher forcing, and Eq. 2 on real questions."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.testing import assert_close

from extract.errors import UserError
from extract.generation import decode
from extract.llm import LLM
from extract.store import ScoreStore
from extract.tasks import MultiHopQA, QuestionTexts, check_task
from extract.tasks.sources import HotpotQA, JsonLines, SyntheticQA
from tests.conftest import ROOT, Run
from tests.extract.tasks.test_sources import DEV, LINE, TRAIN, real
from tests.helpers import reference

NO_EXAMPLES = QuestionTexts(examples=[])


def prepared(llm: LLM, *args: Any, **options: Any) -> MultiHopQA:
    task = MultiHopQA(*args, **options)
    task.prepare(llm)
    return task


def question_tasks(node: Any) -> list[dict[str, Any]]:
    """Settings of every `extract.MultiHopQA` in a config."""
    inner = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    found = [one for value in inner for one in question_tasks(value)]
    named = isinstance(node, dict) and node.get("class_path") == "extract.MultiHopQA"
    return [node["init_args"], *found] if named else found


@pytest.mark.parametrize("config", ["extract/hotpotqa", "ablation/hotpotqa", "ablation/hotpotqa_k", "rag"])
def test_another_style_in_a_shipped_config_has_its_own_budget(config: str) -> None:
    (settings,) = question_tasks(yaml.safe_load((ROOT / "configs" / f"{config}.yaml").read_text()))
    for style, budget in {"chain": 100, "short": 24}.items():
        for given, recorded in {settings["budget"]: budget, 7: 7}.items():
            task = MultiHopQA(SyntheticQA(1), **{"style": style, "budget": given})
            assert task.budget == recorded  # what the manifest holds, so that stores of `budget: 100` resume


@real
@pytest.mark.parametrize("context", ["full", "gold"])
def test_evidence_tokens_decode_to_the_supporting_facts(llm: LLM, context: Any) -> None:
    source = HotpotQA([str(DEV), *map(str, TRAIN)])
    task = prepared(llm, source, context=context, limit=250)
    records = {record.id: record for record in source.load().records}
    assert len(task) == 250
    samples = [task.sample(index) for index in task.order()]
    for sample in samples:
        facts = [passage.text[a:b] for passage in records[sample.name].passages for a, b in passage.evidence]
        said = [llm.tokenizer.decode(sample.ids[a:b]) for a, b in sample.evidence]
        assert [text.strip() for text in said] == facts
        assert 0 <= sample.fields["depth"] <= 100  # type: ignore[operator]
    lengths = [len(sample.ids) for sample in samples]
    assert lengths == sorted(lengths)


def test_titles_are_no_evidence_and_braces_are_left_alone(llm: LLM, tmp_path: Path) -> None:
    raw = {
        "_id": "1",
        "question": "{context} or {instruction}?",
        "answer": "B",
        "supporting_facts": [["Same words", 0]],
    }
    raw["context"] = [["Same words", ["Same words"]], ["D", ["{question}"]]]
    (tmp_path / "q.json").write_text(json.dumps([raw]))
    sample = (task := prepared(llm, HotpotQA(str(tmp_path / "q.json")))).sample(0)
    text = llm.tokenizer.decode(sample.ids)
    assert "Question:\n{context} or {instruction}?" in text
    assert "D\n{question}\n\n" in text
    ((start, end),) = sample.evidence
    before = llm.tokenizer.decode(sample.ids[:start])
    assert before.endswith("Same words\n")
    assert llm.tokenizer.decode(sample.ids[start:end]).strip() == "Same words"
    assert task.describe()["left_out"] == {}


def test_prompts_without_context_hide_it_and_gold_ones_show_the_facts_alone(llm: LLM) -> None:
    source = SyntheticQA(3)
    shown = {kind: prepared(llm, source, context=kind, texts=NO_EXAMPLES) for kind in ("full", "gold", "none")}
    for number, record in enumerate(source.load().records):
        texts = {kind: llm.tokenizer.decode(task.sample(number).ids) for kind, task in shown.items()}
        assert record.answer not in texts["none"]
        assert "Context" not in texts["none"]
        assert shown["none"].sample(number).evidence == []
        assert math.isnan(shown["none"].sample(number).fields["depth"])  # type: ignore[arg-type]
        assert texts["gold"].count("known for") == 0
        assert len(texts["gold"]) < len(texts["full"])


def test_what_does_not_fit_is_dropped_or_cut_but_never_its_evidence(llm: LLM, tmp_path: Path) -> None:
    filler = "\n\n".join(f"Passage {n} says little." for n in range(30))
    long = {**LINE, "id": "long", "context": f"{LINE['context']}\n\n{filler}"}
    hopeless = {**LINE, "id": "hopeless", "context": "Al came. " * 200, "evidence": [[0, 1800]]}
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, (LINE, hopeless, long))))
    options: dict[str, Any] = {"max_tokens": 300, "texts": NO_EXAMPLES}
    dropped = prepared(llm, JsonLines(str(tmp_path / "q.jsonl")), **options)
    assert dropped.describe()["left_out"] == {"longer than 300 tokens": ["hopeless", "long"]}
    assert len(dropped) == 1
    cut = prepared(llm, JsonLines(str(tmp_path / "q.jsonl")), overlong="cut", **options)
    assert cut.describe()["left_out"] == {"longer than 300 tokens": ["hopeless"]}
    assert cut.describe()["repaired"] == {"passages without evidence cut to fit": ["long"]}
    check_task(cut)  # the numbers of its samples have a gap
    sample = cut.sample(2)
    assert len(sample.ids) + sample.budget <= 300
    text = llm.tokenizer.decode(sample.ids)
    assert "Passage 0 says" in text
    assert "Passage 29" not in text
    assert "Al came." in "".join(llm.tokenizer.decode(sample.ids[a:b]) for a, b in sample.evidence)
    with pytest.raises(UserError, match="no usable question; questions left out: 3, longer"):
        prepared(llm, JsonLines(str(tmp_path / "q.jsonl")), max_tokens=50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": QuestionTexts(template="{question}")}, "texts.template: it must hold {context} once"),
        ({"texts": QuestionTexts(answer_end="(")}, "no regular expression"),
        ({"budget": 0}, "budget 0"),
        ({"texts": QuestionTexts(examples=[{"question": "?"}])}, "one lacks answer, context"),
    ],
)
def test_bad_settings(llm: LLM, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepared(llm, SyntheticQA(1), **options)


def test_teacher_forcing_scores_along_the_gold_answer(llm: LLM) -> None:
    task = prepared(llm, SyntheticQA(3), teacher_forcing=True, texts=NO_EXAMPLES)
    check_task(task)
    samples = [task.sample(index) for index in task.order()]
    decoded = decode(llm, samples)
    single = prepared(llm, SyntheticQA(3), budget=1, texts=NO_EXAMPLES)
    free = decode(llm, [single.sample(index) for index in task.order()])
    assert_close(decoded.hidden[:, 0], free.hidden[:, 0], atol=1e-4, rtol=0)  # the first query is the same
    for row, sample in enumerate(samples):
        length = decoded.lengths[row]
        assert llm.tokenizer.decode(decoded.tokens[row, :length]) == f"So the answer is {sample.gold}."
        assert all(math.isnan(value) for value in task.grade(sample, "x").values())
    short = prepared(
        llm, SyntheticQA(1), style="short", texts=QuestionTexts(opening="Answer:"), teacher_forcing=True
    ).sample(0)
    assert llm.tokenizer.decode(short.forced) == f" {short.gold}"


@real
@pytest.mark.slow
def test_eq2_equals_eager_attention_on_real_questions(llm: LLM) -> None:
    """20 real questions, all heads and steps, within 1e-5, in batches.

    The shortest of a set as shipped, with examples and all passages. A fifth as long are the shortest 19 of another
    set without examples, cut to 240 tokens: their forwards cost little, and their evidence has been moved.
    """
    from transformers import AutoModelForCausalLM

    eager = AutoModelForCausalLM.from_pretrained(llm.folder, attn_implementation="eager", dtype=torch.float32).eval()
    shipped = prepared(llm, HotpotQA(str(TRAIN[1])), budget=8)
    cut = prepared(llm, HotpotQA(str(TRAIN[0])), budget=8, texts=NO_EXAMPLES, max_tokens=240, overlong="cut")
    samples = [task.sample(index) for task, count in ((shipped, 1), (cut, 19)) for index in task.order()[:count]]
    assert len({sample.name for sample in samples}) == 20
    for first, end in ((0, 1), (1, 8), (8, 14), (14, 20)):
        decoded = decode(llm, samples[first:end])
        for row, sample in enumerate(samples[first:end]):
            length = decoded.lengths[row]
            slow = reference.replay(eager, sample.ids, decoded.tokens[row, :length].tolist())
            evidence = {position for a, b in sample.evidence for position in range(a, b)}
            for step, attention in enumerate(slow["attention"]):
                assert slow["tokens"][step] == decoded.tokens[row, step]
                heads = attention.double()
                kept = heads[:, 4 : max(4, heads.shape[1] - 64)].sum(dim=1)
                facts = [key for key in sorted(evidence) if 4 <= key < heads.shape[1] - 64]
                wanted = heads[:, facts].sum(dim=1) / kept if facts else torch.full_like(kept, torch.nan)
                assert_close(decoded.reasoning[row, step].double(), wanted, atol=1e-5, rtol=0, equal_nan=True)
                for head in range(step, len(heads), 27):  # the loop form of the equation
                    loop = reference.eq2(heads[head].numpy(), evidence, 4, 64)
                    assert float(wanted[head]) == pytest.approx(loop, rel=1e-12, nan_ok=True)


def test_evidence_in_the_excluded_part_is_reported_not_scored(run: Run, tiny_llm_folder: Path, tmp_path: Path) -> None:
    def extract(store: str, local: int) -> ScoreStore:
        source = {"class_path": "extract.SyntheticQA", "init_args": {"count": 3}}
        code, _ = run(
            "predict",
            *("-c", "configs/extract/hotpotqa.yaml", "--llm.init_args.name", tiny_llm_folder),
            *("--data.init_args.task.init_args.source", json.dumps(source)),
            *("--data.init_args.task.init_args.budget", 3, "--data.init_args.task.init_args.force", 2),
            *("--model.init_args.local", local),
            *("--store", tmp_path / store, "--trainer.default_root_dir", tmp_path / "runs"),
            *("--trainer.accelerator", "cpu"),
        )
        assert code == 0
        return ScoreStore(tmp_path / store)

    scored, unscored = extract("scored", 64), extract("unscored", 2000)
    assert scored.samples()["unscored"].to_pylist() == [0, 0, 0]
    assert all(torch.from_numpy(x.copy()).isfinite().all() for x in scored.vectors("reasoning"))
    assert unscored.samples()["unscored"].to_pylist() == unscored.samples()["steps"].to_pylist()
    assert all(torch.from_numpy(x.copy()).isnan().all() for x in unscored.vectors("reasoning"))
    assert unscored.manifest["unscored_samples"] == 3
    grades = {"em", "f1", "answered", "em_last", "f1_last", "contains", "em_forced", "f1_forced", "continuation"}
    assert {"id", "kind", "level", "passages", "length", "depth"} | grades <= set(scored.samples().column_names)
    assert scored.manifest["task"]["force"] == 2
    assert all(scored.samples()["continuation"].to_pylist())  # a random model never writes the marker
    assert scored.samples()["steps"].to_pylist() == [3, 3, 3]  # its continuation is no step


def test_a_task_that_forces_nothing_describes_itself_as_earlier_versions_did(tiny_llm_folder: Path) -> None:
    """So that their stores and trials continue."""
    tiny = LLM(str(tiny_llm_folder))
    assert "force" not in prepared(tiny, SyntheticQA(1)).describe()
    forcing = prepared(tiny, SyntheticQA(1), force=16)
    assert {**prepared(tiny, SyntheticQA(1)).describe(), "force": 16} == forcing.describe()


@pytest.mark.slow
def test_synthetic_questions_need_their_context(llm: LLM) -> None:
    """The embedded LLM answers some of 8 questions with the context (0.43 of 40 measured) and none of them without."""

    def right(context: Any) -> float:
        task = prepared(llm, SyntheticQA(16), context=context, budget=48)
        samples = [task.sample(number) for number in range(8)]
        decoded = decode(llm, samples)
        answers = (llm.tokenizer.decode(row[:n]) for row, n in zip(decoded.tokens, decoded.lengths, strict=True))
        graded = [
            task.grade(sample, answer.replace("<|im_end|>", ""))
            for sample, answer in zip(samples, answers, strict=True)
        ]
        return sum(metrics["em"] for metrics in graded) / len(graded)

    assert right("full") >= 0.12
    assert right("none") == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is a folder"), ("{", "questions left out: 1, not JSON"), ('[{"_id": "x"}]', "no field 'question'")],
)
def test_bad_questions_end_the_command_with_one_line(
    run: Run, tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "q.json"
    if content is None:
        file.mkdir()
    else:
        file.write_text(content)
    source = {"class_path": "extract.HotpotQA", "init_args": {"files": str(file)}}
    code, error = run(
        *("predict", "-c", "configs/extract/hotpotqa.yaml", "--store", tmp_path / "store"),
        *("--data.init_args.task.init_args.source", json.dumps(source), "--trainer.default_root_dir", tmp_path / "out"),
    )
    assert code == 2
    assert message in error.strip().splitlines()[-1]
    assert not (tmp_path / "store").exists()

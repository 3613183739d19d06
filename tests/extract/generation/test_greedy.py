"""Batched, cached decoding against eager attention maps of one prompt at a time, without any cache."""

import dataclasses

import pytest
import torch

from extract.generation import Decoded, decode
from extract.llm import LLM
from extract.scores import ExcludedKeys
from extract.tasks import Sample
from extract.tasks.niah import NIAH
from tests.helpers import reference

SINK, LOCAL = 4, 64
EXCLUDED = ExcludedKeys(SINK, LOCAL)


@pytest.fixture(scope="module")
def samples(llm: LLM) -> list[Sample]:
    """Ten as the demo's, from haystacks of 20 to 60 tokens."""
    task = NIAH(lengths={"low": 20, "high": 60}, runs=320, margin=4)
    task.prepare(llm)
    return [task.sample(index) for index in range(10)]


@pytest.fixture(scope="module")
def decoded(llm: LLM, samples: list[Sample]) -> Decoded:
    """All ten in one batch."""
    return decode(llm, samples, EXCLUDED)


def row(decoded: Decoded, sample: int, step: int) -> dict[str, torch.Tensor]:
    fields = ("tokens", "hidden", "copy_paste", "reasoning", "argmax")
    return {name: getattr(decoded, name)[sample, step] for name in fields}


def test_ten_prompts_equal_eager_attention_step_by_step(samples: list[Sample], decoded: Decoded) -> None:
    """Argmax equal save ties within 1e-5, masses and scores within 1e-5, hidden states within 1e-4."""
    eager = LLM(attention="eager").model
    ties = 0
    for number, sample in enumerate(samples):
        answer = decoded.tokens[number, : decoded.lengths[number]].tolist()
        truth = reference.replay(eager, sample.ids, answer)
        assert truth["tokens"] == answer
        ids = sample.ids + answer
        evidence = {i for start, end in sample.evidence for i in range(start, end)}
        marked = torch.zeros(len(ids), dtype=torch.bool)
        marked[sorted(evidence)] = True
        for step, attention in enumerate(truth["attention"]):
            mine = row(decoded, number, step)
            assert mine["tokens"] == truth["tokens"][step]
            torch.testing.assert_close(mine["hidden"], truth["hidden"][step], atol=1e-4, rtol=1e-4)
            chosen = attention.gather(1, mine["argmax"][:, None])[:, 0]
            differs = mine["argmax"] != attention.argmax(1)
            assert (attention.max(1).values - chosen)[differs].abs().le(1e-5).all()
            ties += int(differs.sum())
            keys = attention.shape[1]
            attended = attention.argmax(1)[~differs].tolist()
            eq1 = [best in evidence and ids[best] == truth["tokens"][step] for best in attended]
            assert mine["copy_paste"][~differs].tolist() == eq1
            kept = torch.zeros(keys, dtype=torch.bool)
            kept[SINK : keys - LOCAL] = True
            total, part = attention[:, kept].sum(1), attention[:, kept & marked[:keys]].sum(1)
            torch.testing.assert_close(mine["reasoning"] * total, part, atol=1e-5, rtol=0)
        # the loop forms of both equations on a few heads of the last step
        for head in range(0, len(attention), 37):
            assert mine["copy_paste"][head] == reference.eq1(attention[head], ids, evidence, answer[-1])
            wanted = reference.eq2(attention[head], evidence, SINK, LOCAL)
            assert float(mine["reasoning"][head]) == pytest.approx(wanted, abs=1e-5)
    assert ties <= 5


def test_a_batch_gives_the_rows_of_single_prompts(llm: LLM, samples: list[Sample], decoded: Decoded) -> None:
    """One to its end, three for their first steps: a further one repeats the same forward with a key more."""
    for number, sample in enumerate(samples[:4]):
        most = 6 if number else sample.budget
        single = decode(llm, [dataclasses.replace(sample, budget=most)], EXCLUDED)
        n = single.lengths[0]
        assert n == min(decoded.lengths[number], most)
        for step in range(n):
            a, b = row(decoded, number, step), row(single, 0, step)
            for name in ("tokens", "copy_paste", "argmax"):
                assert torch.equal(a[name], b[name]), name
            torch.testing.assert_close(a["hidden"], b["hidden"], atol=1e-4, rtol=0)
            torch.testing.assert_close(a["reasoning"], b["reasoning"], atol=1e-4, rtol=0)


def test_generation_ends_at_an_end_token_whose_step_is_a_row_or_at_the_budget(
    llm: LLM, samples: list[Sample], decoded: Decoded
) -> None:
    for number, sample in enumerate(samples):
        n = decoded.lengths[number]
        tokens = decoded.tokens[number, :n].tolist()
        assert all(token not in llm.end_tokens for token in tokens[:-1])
        assert tokens[-1] in llm.end_tokens or n == sample.budget
    ended = [decoded.tokens[i, n - 1].item() in llm.end_tokens for i, n in enumerate(decoded.lengths)]
    assert any(ended)

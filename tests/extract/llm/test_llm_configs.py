"""The shipped LLM configs: each on a tiny random model of the same class and shape, and what the documentation says."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from extract.generation import decode
from extract.llm import LLM
from extract.prompts import render_chat_prompt
from extract.tasks import Sample
from tests.conftest import ROOT
from tests.extract.attention.test_families import EXCLUDED, agrees, samples
from tests.helpers import reference
from tests.helpers.model_shapes import SHAPES
from tests.helpers.tokenizers import KINDS, fast


def config_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f"configs/llm/{name}.yaml").read_text())["llm"]["init_args"]
    return found


def test_every_shipped_llm_has_its_shape_here() -> None:
    assert {file.stem for file in (ROOT / "configs/llm").glob("*.yaml")} == {*SHAPES, "smollm2"}


@pytest.mark.parametrize("name", SHAPES)
@torch.inference_mode()
def test_a_tiny_model_of_the_same_class_and_shape(llm: LLM, name: str, tmp_path: Path) -> None:
    """With the shipped settings, save the weights' name and float32: scores equal eager attention."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = SHAPES[name].config(**SHAPES[name].smaller)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    llm.tokenizer.save_pretrained(tmp_path)
    tiny = LLM(**{**config_of(name), "name": str(tmp_path), "dtype": "float32"})
    eager = LLM(str(tmp_path), attention="eager").model
    chosen = samples(steps=4)
    decoded = decode(tiny, chosen, EXCLUDED)
    assert tiny.identity.heads == SHAPES[name].options["num_attention_heads"]
    for row, sample in enumerate(chosen):
        answer = decoded.tokens[row, : decoded.lengths[row]].tolist()
        truth = reference.replay(eager, sample.ids, answer)
        agrees(decoded.tokens[row, : len(answer)], truth["logits"], 1e-4)
        torch.testing.assert_close(decoded.hidden[row, : len(answer)], truth["hidden"], atol=1e-4, rtol=1e-4)
        for step, rows in enumerate(truth["attention"]):
            agrees(decoded.argmax[row, step], rows, 1e-5)


def test_phi4_mini_beyond_its_original_length(llm: LLM, tmp_path: Path) -> None:
    """A prompt of 4,200 tokens in chunks of 2,048, beside a short one: tokens and hidden states of eager attention."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    shape = SHAPES["phi4-mini"]
    config = shape.config(**{**shape.smaller, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 16})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    llm.tokenizer.save_pretrained(tmp_path)
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(5, 400, (n,), generator=generator).tolist() for n in (4200, 60)]
    chosen = [Sample(row, str(row), ids, [(3, 8)], 2, "", "") for row, ids in enumerate(prompts)]
    tiny = LLM(**{**config_of("phi4-mini"), "name": str(tmp_path), "dtype": "float32"})
    decoded = decode(tiny, chosen)
    eager = LLM(str(tmp_path), attention="eager").model
    for row, sample in enumerate(chosen):
        answer = decoded.tokens[row, :2].tolist()
        with torch.no_grad():
            truth = eager(
                torch.tensor([sample.ids + answer[:-1]]), use_cache=False, output_hidden_states=True, logits_to_keep=2
            )
        assert truth.logits[0].argmax(-1).tolist() == answer
        torch.testing.assert_close(decoded.hidden[row], truth.hidden_states[-1][0, -2:], atol=1e-4, rtol=1e-4)


def test_qwen3_does_not_think() -> None:
    """The option reaches a template as Qwen3's is written."""
    thinks = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>{% endif %}"
    )
    tokenizer = fast(KINDS["byte_level"](), thinks)
    assert render_chat_prompt(tokenizer, "S", "U", config_of("qwen3-8b")["chat"]).text == "SU<think>\n\n</think>"
    assert render_chat_prompt(tokenizer, "S", "U").text == "SU"


def test_the_documentation_says_what_each_needs() -> None:
    """Weights in 16 bits, and keys and values by thousand tokens and at the full context, from the shapes."""
    text = (ROOT / "docs" / "guides" / "model.md").read_text()
    for name, shape in SHAPES.items():
        row = re.search(rf"^\| \[?`?{re.escape(name)}`?.*$", text, re.MULTILINE)
        assert row, name
        context = shape.options["max_position_embeddings"]
        parameters = shape.parameters()
        for wanted in (
            f"{parameters / 1e9:.2f}",
            f"{parameters * 2 / 2**30:.1f}",
            f"{shape.cache_bytes(1000) / 2**30:.2f}",
            f"{context:,}",
            f"{shape.cache_bytes(context) / 2**30:.1f}",
        ):
            assert f" {wanted} " in row[0], (name, wanted)

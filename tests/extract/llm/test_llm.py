"""Loading: shape of the embedded model, weights by hash, pickles by name only."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from extract.llm import LLM
from extract.llm.gguf import embedded_gguf


def test_embedded_model_has_the_measured_shape(llm: LLM) -> None:
    identity = llm.identity
    assert (identity.layers, identity.heads, identity.hidden_size) == (30, 9, 576)
    assert identity.weights.startswith("sha256:")
    assert llm.context_length == 8192
    assert llm.end_tokens == (2,)
    assert not llm.model.training
    assert not any(p.requires_grad for p in llm.model.parameters())


def test_identity_follows_the_weights(tiny_llm_folder: Path, tmp_path: Path) -> None:
    tiny = LLM(str(tiny_llm_folder)).identity
    shutil.copytree(tiny_llm_folder, tmp_path / "copy")
    copy = LLM(str(tmp_path / "copy"), dtype="bfloat16").identity
    assert tiny.same_model(copy)
    assert copy.dtype == "bfloat16"
    data = bytearray((tmp_path / "copy" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "copy" / "model.safetensors").write_bytes(data)
    assert not tiny.same_model(LLM(str(tmp_path / "copy")).identity)
    assert not tiny.same_model(replace(tiny, weights="commit:abc"))


@pytest.mark.slow
def test_the_conversion_is_the_gguf_model(llm: LLM) -> None:
    """Logits equal those of transformers' own GGUF loading, bit for bit."""
    from transformers import AutoModelForCausalLM

    gguf = embedded_gguf("embedded:smollm2")
    direct = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    ids = torch.tensor([[1, 504, 5535, 2229, 314]])
    with torch.no_grad():
        assert torch.equal(direct(ids).logits, llm.model(ids).logits)


def test_pickled_weights_only_by_name(tiny_llm_folder: Path, tmp_path: Path) -> None:
    from extract.errors import UserError

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_llm_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    state = LLM(str(tiny_llm_folder)).model.state_dict()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        _ = LLM(str(folder)).model
    assert LLM(str(folder), allow_pickle=True).identity.layers == 3

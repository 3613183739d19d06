"""Identity of a model: whatever changes tokens or hidden states changes it, and nothing else does."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from extract.errors import UserError
from extract.llm import LLM
from extract.llm.identity import REMARKS, config_hash
from extract.store import ScoreStore
from extract.utils import first_difference
from tests.conftest import ROOT

Extract = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(tiny_llm_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llm_folder, tmp_path / "copy"))


def edit(file: Path, **values: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    content = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def edit_text(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def edit_tokenizer(file: Path) -> None:
    """Split as GPT-2 does, and not on each digit."""
    content = json.loads(file.read_text())
    content["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    file.write_text(json.dumps(content))


YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 128}
CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "rope theta": ("config", lambda f: edit(f / "config.json", rope_parameters={"rope_theta": 5e5})),
    "rope scaling": ("config", lambda f: edit(f / "config.json", rope_parameters=YARN)),
    "activation": ("config", lambda f: edit(f / "config.json", hidden_act="gelu")),
    "norm": ("config", lambda f: edit(f / "config.json", rms_norm_eps=1e-3)),
    "context": ("config", lambda f: edit(f / "config.json", max_position_embeddings=256)),
    "pre-tokenizer": ("tokenizer", lambda f: edit_tokenizer(f / "tokenizer.json")),
    "special token": ("tokenizer", lambda f: edit(f / "tokenizer_config.json", bos_token="<|endoftext|>")),
    "chat template": ("tokenizer", lambda f: edit_text(f / "chat_template.jinja", "<|im_end|>", "<|im_end|> ")),
    "end tokens": ("generation config", lambda f: edit(f / "generation_config.json", eos_token_id=[2, 7])),
}
SAME: dict[str, Callable[[Path], object]] = {
    "version": lambda f: edit(f / "config.json", transformers_version="5.0.0", _name_or_path="elsewhere"),
    "saved precision": lambda f: edit(f / "config.json", dtype="bfloat16"),
    "a stated default": lambda f: edit(f / "config.json", attention_bias=False, mlp_bias=None),
    "sampling": lambda f: edit(f / "generation_config.json", temperature=0.6, do_sample=True),
    "spaces": lambda f: (f / "tokenizer.json").write_text(
        json.dumps(json.loads((f / "tokenizer.json").read_text()), indent=3)
    ),
    "order of keys": lambda f: (f / "config.json").write_text(
        json.dumps(dict(reversed(json.loads((f / "config.json").read_text()).items())))
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_tokens_or_states_is_another_model_and_named(
    tiny_llm_folder: Path, folder: Path, change: str
) -> None:
    what, apply = CHANGES[change]
    apply(folder)
    before, after = LLM(str(tiny_llm_folder)).identity, LLM(str(folder)).identity
    assert before.differences(after) == what
    assert not before.same_model(after)


@pytest.mark.parametrize("change", SAME)
def test_remarks_and_spellings_are_the_same_model(tiny_llm_folder: Path, folder: Path, change: str) -> None:
    SAME[change](folder)
    before, after = LLM(str(tiny_llm_folder)).identity, LLM(str(folder)).identity
    assert before == replace(after, name=before.name)


def test_identity_needs_no_weights_in_memory(folder: Path) -> None:
    made = LLM(str(folder))
    assert made.identity.layers == 3
    assert made._model is None
    assert made.end_tokens == (2,)


def test_every_difference_of_two_configs_that_is_no_remark_counts() -> None:
    from transformers import GptOssConfig, MistralConfig

    tiny = {"num_hidden_layers": 2, "hidden_size": 32}
    for kind, changes in {
        MistralConfig: ({"sliding_window": 8}, {"sliding_window": None}, {"head_dim": 16}),
        GptOssConfig: ({"layer_types": ["full_attention"] * 2}, {"swiglu_limit": 3.0}, {"num_experts_per_tok": 2}),
    }.items():
        hashes = [config_hash(kind(**tiny, **change)) for change in ({}, *changes)]
        assert len(set(hashes)) == len(hashes)
        assert config_hash(kind(**tiny, **dict.fromkeys(("architectures", "_name_or_path"), None))) == hashes[0]
    assert "rope_parameters" not in REMARKS


def test_code_that_comes_with_a_model_counts(folder: Path) -> None:
    from transformers import AutoConfig

    code, config = folder / "modeling_mine.py", AutoConfig.from_pretrained(folder)
    hashes = {config_hash(config)}
    for text in ("a = 1", "a = 2"):
        code.write_text(text)
        hashes.add(config_hash(config, [code]))
    assert len(hashes) == 3


def test_what_was_not_recorded_is_not_compared(tiny_llm_folder: Path) -> None:
    now = LLM(str(tiny_llm_folder)).identity
    early = replace(now, config="", tokenizer="", generation_config="")
    assert early.same_model(now)
    assert early.differences(replace(now, weights="commit:abc")) == "weights"


def test_a_model_of_the_hub_has_commit_and_hashes(
    tiny_llm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downloaded repository, as the hub's client keeps it; the machine is offline."""
    repo = tmp_path / "models--me--tiny"
    shutil.copytree(tiny_llm_folder, repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    there, here = LLM("me/tiny").identity, LLM(str(tiny_llm_folder)).identity
    assert there.weights == "commit:" + "a" * 40
    assert replace(there, name=here.name, weights=here.weights) == here
    edit(repo / "snapshots" / ("a" * 40) / "config.json", num_hidden_layers=4)
    with pytest.raises(UserError, match=r"'me/tiny': its config\.json and its weights disagree: 9 weights are missing"):
        _ = LLM("me/tiny").model


def spoil(folder: Path, value: float) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


WRONG: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": (r"9 weights are missing \(model\.layers\.3\.", lambda f: edit(f / "config.json", num_hidden_layers=4)),
    "unexpected": ("9 weights have no place in the model", lambda f: edit(f / "config.json", num_hidden_layers=2)),
    "shape": (r"\[32, 64\] instead of \[32, 48\]", lambda f: edit(f / "config.json", intermediate_size=48)),
    "NaN": (r"NaN or infinite values in 1 of its weights \(model\.layers\.1\.mlp", lambda f: spoil(f, torch.nan)),
    "infinite": ("NaN or infinite values", lambda f: spoil(f, torch.inf)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_weights_that_are_not_the_configs_are_refused_in_one_line(folder: Path, wrong: str) -> None:
    why, apply = WRONG[wrong]
    apply(folder)
    with pytest.raises(UserError, match=why) as caught:
        _ = LLM(str(folder)).model
    assert "\n" not in str(caught.value)


def test_weights_beyond_the_chosen_precision_are_refused(folder: Path) -> None:
    spoil(folder, 1e6)
    assert LLM(str(folder)).model is not None
    with pytest.raises(UserError, match=r"in torch\.float16; .* a wider llm\.dtype"):
        _ = LLM(str(folder), dtype="float16").model


def test_an_adapter_beside_the_weights_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter"):
        _ = LLM(str(folder)).model


def test_tied_and_outdated_keys_are_no_gap(folder: Path) -> None:
    edit(folder / "config.json", tie_word_embeddings=True)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)  # in Llama checkpoints of 2023
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = LLM(str(folder)).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


ONE_BATCH = ("--trainer.limit_predict_batches", 1)


@pytest.mark.parametrize("change", ["rope theta", "pre-tokenizer", "chat template", "end tokens"])
def test_a_store_is_not_continued_with_an_edited_model(
    extract_tiny: Extract, folder: Path, tmp_path: Path, change: str
) -> None:
    llm = ("--llm.init_args.name", folder)
    extract_tiny(tmp_path / "s", *llm, *ONE_BATCH)
    what, apply = CHANGES[change]
    apply(folder)
    code, error = extract_tiny(tmp_path / "s", *llm)
    assert code == 2
    assert re.search(rf"begun with other settings \(llm\.{what.replace(' ', '_')}: .* there, .* here\)", error)


def test_two_spellings_of_model_and_haystack_continue_one_store(
    extract_tiny: Extract, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    haystack = "--data.init_args.task.init_args.haystack"
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("One is one. Two is two. Three is three. " * 9)
    extract_tiny(tmp_path / "s", haystack, tmp_path / "one.txt", *ONE_BATCH)
    options = ("--llm.init_args.name", folder, haystack, tmp_path / "two.txt")
    assert extract_tiny(tmp_path / "s", *options)[0] == 0
    (tmp_path / "two.txt").write_text("Another text. It has another end. " * 9)
    code, error = extract_tiny(tmp_path / "s", *options)
    assert (code, "task.haystack_sha256" in error) == (2, True)


def test_a_store_without_a_batch_is_begun_again(extract_tiny: Extract, tmp_path: Path) -> None:
    extract_tiny(tmp_path / "s", "--trainer.limit_predict_batches", 0)
    assert extract_tiny(tmp_path / "s", "--data.init_args.task.init_args.seed", 7)[0] == 0
    assert ScoreStore(tmp_path / "s").manifest["task"]["seed"] == 7


def test_an_early_store_is_read_but_not_continued(extract_tiny: Extract, tmp_path: Path) -> None:
    store = shutil.copytree(ROOT / "tests/extract/store/format_2", tmp_path / "early")
    assert ScoreStore(store).identity.config == ""
    code, error = extract_tiny(store)
    assert code == 2
    assert "recorded the model's weights but not its config and tokenizer: it can be read, but not continued" in error


def test_remarks_of_other_settings_are_compared() -> None:
    assert first_difference({"llm": {"name": "a"}, "name": "x"}, {"llm": {"name": "b"}, "name": "y"}) == (
        "name: x there, y here"
    )
    assert first_difference({"a": 1}, {"a": 1, "b": "f" * 64}) == f"b: none there, {'f' * 12}… here"

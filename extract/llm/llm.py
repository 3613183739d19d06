"""The frozen language model: settings, loaded on first use, and never a child module of anything."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from extract.attention import ATTENTION_IMPLEMENTATION
from extract.errors import UserError
from extract.llm.identity import LLMIdentity, config_hash, hub_commit, tokenizer_hash, weights_hash
from extract.llm.location import locate_model, weights_place
from extract.llm.pretrained import Pretrained
from extract.llm.supported import check_sizes
from extract.utils import PositiveInt, cpu_has_bfloat16, said_if_slow

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


PREFILL_CHUNK = 2048
"""Default number of prompt tokens of one forward pass in prefill."""


class LLM:
    """A frozen causal language model with its tokenizer, loaded on first use.

    It is a plain object on purpose: as a child of a LightningModule it would be moved, cast and saved with it.

    Args:
        name: `embedded:smollm2`, a local folder, a local GGUF file, or a Hugging Face model id.
        dtype: Precision of weights and computation; float32 is the reference.
        device_map: accelerate's placement (`auto` spreads over devices, one process only); by default the whole
            model goes to the Trainer's device.
        quantization: Quantize while loading: the keys of one of transformers' quantization configs with its
            `quant_method`, such as `{quant_method: bitsandbytes, load_in_4bit: true}`. Needs that method's library.
        attention: How prefill computes attention: `sdpa` (exact also where PyTorch's SDPA is not: soft caps and sinks
            are then computed in blocks), or another implementation of transformers (`eager`, `flash_attention_2`).
            Decode steps always compute their own softmax row.
        prefill_chunk: Most prompt tokens of one forward pass: beside model and KV cache, memory does not grow with
            the prompt. null runs each prompt whole.
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
        prefill_chunk: PositiveInt | None = PREFILL_CHUNK,
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
        self._config: PreTrainedConfig | None = None
        self._folder: str | None = None
        self._ends: tuple[int, ...] | None = None
        self._identity: LLMIdentity | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the loaded parts: a spawned process loads its own."""
        return {**self.__dict__, "_model": None, "_tokenizer": None, "_config": None}

    @property
    def folder(self) -> str:
        """What transformers loads from: a local folder, or the hub id.

        Raises:
            UserError: the model cannot be found.

        """
        if self._folder is None:
            self._folder = locate_model(self.name)
        return self._folder

    @property
    def _pretrained(self) -> Pretrained:
        return Pretrained(self.name, self.folder, self.revision, self.trust_remote_code)

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The fast tokenizer, which knows the character offsets of its tokens.

        Raises:
            UserError: the model cannot be found, or its tokenizer has no offsets.

        """
        if self._tokenizer is None:
            self._tokenizer = self._pretrained.tokenizer()
        return self._tokenizer

    @property
    def model(self) -> "PreTrainedModel":
        """The model of transformers, frozen and in eval mode.

        Raises:
            UserError: it cannot be loaded, or its heads cannot be recorded exactly.

        """
        if self._model is None:
            with said_if_slow(f"loading {self.name}{weights_place(self.folder)} in {self.dtype}"):
                self._model = self._pretrained.model(
                    dtype=getattr(torch, self.dtype),
                    device_map=self.device_map,
                    attn_implementation=ATTENTION_IMPLEMENTATION if self.attention == "sdpa" else self.attention,
                    use_safetensors=None if self.allow_pickle else True,
                    **({"quantization_config": self.quantization} if self.quantization else {}),
                )
        return self._model

    def to(self, device: torch.device) -> None:
        """Place the model on a device, unless accelerate (`device_map`) or its quantization did so."""
        if self._model is None and device.type == "cpu" and self.dtype == "bfloat16" and not cpu_has_bfloat16():
            from lightning.pytorch.utilities import rank_zero_info  # here, so that models load without lightning

            rank_zero_info(
                "llm.dtype bfloat16: this CPU has no instructions for it (avx512_bf16, amx_bf16, ARM's bf16), so that "
                "it is several times slower than float32"
            )
        if self.device_map is None and not getattr(self.model, "is_quantized", False):
            self.model.to(device)  # type: ignore[arg-type]

    @property
    def context_length(self) -> int:
        """Most tokens, prompt and answer together, that the model was made for."""
        return int(self._text_config().max_position_embeddings)

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Every token that ends a generation: the generation config's, the model's and the tokenizer's."""
        if self._ends is None:
            ids: set[int] = set()
            for end in (
                self._pretrained.generation_ends(),
                self._text_config().eos_token_id,
                self.tokenizer.eos_token_id,
            ):
                ids.update(end if isinstance(end, list | tuple) else [] if end is None else [end])
            self._ends = tuple(sorted(ids))
        return self._ends

    @property
    def config(self) -> "PreTrainedConfig":
        """The model's config; it needs no weights.

        Raises:
            UserError: the model cannot be found, or its config lacks a size.

        """
        if self._config is None:
            config = self._pretrained.config()
            check_sizes(self.name, config.get_text_config(decoder=True))
            self._config = config
        return self._config

    def _text_config(self) -> Any:
        return self.config.get_text_config(decoder=True)

    @property
    def identity(self) -> LLMIdentity:
        """Name, hashes and shape. Local weights are hashed once, and not loaded."""
        if self._identity is None:
            config, folder = self._text_config(), Path(self.folder)
            code = sorted(folder.glob("*.py")) if self.trust_remote_code and folder.is_dir() else []
            self._identity = LLMIdentity(
                name=self.name,
                weights=weights_hash(folder) if folder.is_dir() else hub_commit(self.folder, self.revision),
                layers=config.num_hidden_layers,
                heads=config.num_attention_heads,
                hidden_size=config.hidden_size,
                dtype=", ".join([self.dtype, *self._quantization_settings()]),
                config=config_hash(self.config, code),
                tokenizer=tokenizer_hash(self.tokenizer),
                generation_config=f"ends at {', '.join(map(str, self.end_tokens))}",
            )
        return self._identity

    def _quantization_settings(self) -> list[str]:
        return [f"{key}: {value}" for key, value in sorted((self.quantization or {}).items())]

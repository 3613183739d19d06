"""Which models are supported: those whose heads can be recorded and ablated exactly; others are refused by name."""

from typing import TYPE_CHECKING, Any, Protocol

import torch

from extract.attention import preallocated_cache
from extract.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def weightless_model(auto: Any, config: Any, **options: Any) -> "PreTrainedModel":
    """Model of a config without weights, on the meta device, so that it costs no memory.

    Raises:
        UserError: the config belongs to no causal language model.

    """
    if config.is_encoder_decoder:
        raise UserError(f"{_names(config)}: an encoder-decoder; only decoder-only models are supported")
    try:
        with torch.device("meta"):
            model: PreTrainedModel = auto.from_config(config, attn_implementation="eager", **options)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise _refused(config, error) from error
        raise UserError(
            f"{_names(config)}: no causal language model; only decoder-only models are supported"
        ) from error
    except Exception as error:  # a config of impossible sizes or types fails in as many ways as there are classes
        raise _refused(config, error) from error
    return model


def _refused(config: Any, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:160]
    return UserError(f"{_names(config)}: its config.json makes no model ({type(error).__name__}: {reason})")


def _names(config: Any) -> str:
    """Class that a config was saved from, or its own."""
    names = getattr(config, "architectures", None) or [type(config).__name__]
    return str(names[0])


SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size", "max_position_embeddings")


def check_sizes(name: str, config: Any) -> None:
    """Refuse a config without the sizes that are read from it.

    Args:
        name: The model, for the message.
        config: Its config, of the text model.

    Raises:
        UserError: naming the key.

    """
    for key in SIZES:
        value = getattr(config, key, None)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"llm '{name}': {key} of its config.json is {value!r}, not a number of at least 1")


def check_supported(model: "PreTrainedModel") -> None:
    """Check that the heads of a model can be recorded and ablated exactly.

    Raises:
        UserError: they cannot; names the class and the reason.

    """
    name, config = type(model).__name__, model.config
    if config.get_text_config(decoder=True) is not config:
        raise UserError(f"{name}: a multimodal model; only text models are supported")
    if not model._can_set_attn_implementation():
        raise UserError(
            f"{name}: its attention does not go through transformers' AttentionInterface, so its heads cannot be "
            "recorded; use a model class that supports it"
        )
    layers = [module for module in model.modules() if hasattr(module, "layer_idx")]
    if any(getattr(module, "is_causal", True) is False for module in layers):
        raise UserError(f"{name}: its attention is not causal (an encoder); only decoder-only models are supported")
    if any("dynamic" in rope for rope in _rope_types(model)):
        raise UserError(
            f"{name}: its position embedding changes with the length of the sequence (dynamic RoPE), so cached keys "
            "would be wrong; use a static rope_type"
        )
    if model.get_output_embeddings() is None:
        raise UserError(f"{name}: it has no LM head, so nothing can be generated")
    preallocated_cache(model, 1)


def _rope_types(model: "PreTrainedModel") -> set[str]:
    """Types of rotary position embedding in a model."""
    found: set[str] = set()
    for module in model.modules():
        types = getattr(module, "rope_type", None)
        found.update(types.values() if isinstance(types, dict) else [types] if isinstance(types, str) else [])
    return found


class HasConfig(Protocol):
    """A loaded model, or an `LLM` whose weights are not loaded yet."""

    @property
    def config(self) -> "PreTrainedConfig":
        """The model's config."""


def narrowest_window(model: HasConfig) -> int | None:
    """Smallest sliding attention window among the layers, in tokens; None: every layer attends to all keys."""
    from transformers.cache_utils import DynamicCache

    windows = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=model.config).layers]
    return min((int(window) for window in windows if window is not None), default=None)


def is_windowed(model: "PreTrainedModel") -> bool:
    """Whether a layer's sliding window is smaller than the longest prompt that the model takes."""
    window = narrowest_window(model)
    return window is not None and window < int(model.config.max_position_embeddings)

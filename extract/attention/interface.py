"""See and ablate attention heads of a stock transformers model, through its AttentionInterface."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from extract.attention.recorder import Recorder
from extract.attention.softmax import Softmax

if TYPE_CHECKING:
    from transformers import PreTrainedModel


NAME = "retrieval_heads"
"""Under this name the attention function stands in transformers' registry."""
QUERIES = 256
"""Queries of a masked prefill that PyTorch's SDPA gets at once."""
_active: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention function: transformers' SDPA where it is exact, our own otherwise, and the recorder's part."""
    recorder = _active.get()
    softmax = Softmax.of(module, query.shape[-1], scaling, options)
    if recorder is not None and query.shape[2] == 1:
        return recorder.apply_ablation(
            module, recorder.attend(module, query, key, value, attention_mask, softmax)
        ), None
    if softmax.plain:
        output = _sdpa(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options)
    else:
        output = softmax.attention(query, key, value, attention_mask)
    if recorder is None:
        return output, None
    recorder.last_row(module, query, key, attention_mask, softmax)
    return recorder.apply_ablation(module, output), None


def _sdpa(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> Tensor:
    """Transformers' SDPA. Where there is a mask, by blocks of queries, each without the keys behind its last query."""
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    length, keys = query.shape[2], key.shape[2]
    size, outputs = length if mask is None else QUERIES, []
    if length > size:  # each block would repeat the keys of grouped heads for itself
        groups = query.shape[1] // key.shape[1]
        key, value, module = repeat_kv(key, groups), repeat_kv(value, groups), _Ungrouped()
    for start in range(0, length, size):
        stop = min(start + size, length)
        seen = keys - length + stop
        part = None if mask is None else mask[:, :, start:stop, :seen]
        output, _ = sdpa_attention_forward(
            module, query[:, :, start:stop], key[:, :, :seen], value[:, :, :seen], part, **options
        )
        outputs.append(output)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


class _Ungrouped(torch.nn.Module):
    """Stands for an attention module whose every query head has keys of its own."""

    is_causal = True


def register() -> None:
    """Put the attention function into transformers' registry, as `NAME`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def instrumented(model: "PreTrainedModel") -> Iterator[None]:
    """Route the model's attention through this module; its former implementation comes back at the end."""
    register()
    former = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(former)


@contextmanager
def recording(recorder: Recorder, model: "PreTrainedModel") -> Iterator[Recorder]:
    """Every forward of an instrumented `model` within is recorded, and its chosen heads are ablated."""
    token = _active.set(recorder)

    def before(_: torch.nn.Module, __: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        cache = inputs.get("past_key_values")
        recorder.begin(0 if cache is None else cache.get_seq_length())

    def keep(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        recorder.hidden = inputs[0][:, -1].to(recorder.device)

    head = model.get_output_embeddings()
    hooks = [model.register_forward_pre_hook(before, with_kwargs=True), head.register_forward_pre_hook(keep)]
    try:
        yield recorder
    finally:
        _active.reset(token)
        for hook in hooks:
            hook.remove()

"""Instrument a stock transformers model through its AttentionInterface: record and ablate attention heads."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from extract.attention.recorder import Recorder
from extract.attention.recording_plan import RecordingPlan
from extract.attention.softmax import Softmax

if TYPE_CHECKING:
    from transformers import PreTrainedModel


ATTENTION_IMPLEMENTATION = "retrieval_heads"
"""Name of the attention function in transformers' registry."""
QUERY_BLOCK = 256
"""Queries of a masked prefill that PyTorch's SDPA gets in one call."""
# A context variable rather than a keyword of the model's call: StableLM, for one, passes no keywords down.
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
    """The attention function: transformers' SDPA where that is exact, our own otherwise, and the recorder's part."""
    recorder = _active.get()
    softmax = Softmax.of(module, query.shape[-1], scaling, options)
    # A decode step needs its softmax rows anyway: they are formed once, recorded, and used for the output.
    if recorder is not None and query.shape[2] == 1:
        output = recorder.attend(module, query, key, value, attention_mask, softmax)
        return recorder.apply_intervention(module, output), None
    if softmax.plain:
        output = _sdpa(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options)
    else:
        output = softmax.attention(query, key, value, attention_mask)
    if recorder is None:
        return output, None
    # A longer query's kernel forms no rows that could be read, so the last one is computed besides.
    recorder.record_last_row(module, query, key, attention_mask, softmax)
    return recorder.apply_intervention(module, output), None


def _sdpa(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> Tensor:
    """Transformers' SDPA. With a mask, by blocks of queries, each without the keys after its last query."""
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    length, keys = query.shape[2], key.shape[2]
    # Without a mask PyTorch's causal kernel needs no n × n memory. With one, a block of queries bounds it.
    size, outputs = length if mask is None else QUERY_BLOCK, []
    if length > size:  # repeat the keys of grouped heads once instead of in each block
        groups = query.shape[1] // key.shape[1]
        key, value, module = repeat_kv(key, groups), repeat_kv(value, groups), _Ungrouped()
    for start in range(0, length, size):
        stop = min(start + size, length)
        visible = keys - length + stop
        part = None if mask is None else mask[:, :, start:stop, :visible]
        output, _ = sdpa_attention_forward(
            module, query[:, :, start:stop], key[:, :, :visible], value[:, :, :visible], part, **options
        )
        outputs.append(output)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


class _Ungrouped(torch.nn.Module):
    """Stands for an attention module in which every query head has its own keys."""

    is_causal = True


def _mask(*, q_length: int, attention_mask: Tensor | None, allow_is_causal_skip: bool, **options: Any) -> Tensor | None:
    """Transformers' mask for SDPA. Where a decode step has one it is made without asking whether it masks anything.

    To find out the host would wait for the device at every step; callers pass None where nothing is masked.
    """
    from transformers.masking_utils import sdpa_mask

    skips = allow_is_causal_skip and not (q_length == 1 and attention_mask is not None)
    mask: Tensor | None = sdpa_mask(
        q_length=q_length, attention_mask=attention_mask, allow_is_causal_skip=skips, **options
    )
    return mask


def register_attention() -> None:
    """Register the attention function and its mask with transformers, as `ATTENTION_IMPLEMENTATION`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION_IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(ATTENTION_IMPLEMENTATION, _mask)


@contextmanager
def instrumented(model: "PreTrainedModel") -> Iterator[None]:
    """Route the model's attention through this module's function; afterwards its former one is back."""
    register_attention()
    former = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION_IMPLEMENTATION)
    try:
        yield
    finally:
        model.set_attn_implementation(former)


@contextmanager
def recording(
    model: "PreTrainedModel",
    plan: RecordingPlan = RecordingPlan(),  # noqa: B008 (frozen)
) -> Iterator[Recorder]:
    """Record every forward of an instrumented model within, and ablate the plan's heads in it.

    Args:
        model: Within `instrumented`.
        plan: What to keep, and which heads to ablate.

    Yields:
        The recorder; it holds the latest forward's results, also after the end of the block.

    Raises:
        UserError: the plan ablates heads of another model.

    """
    recorder = Recorder(model, plan)

    # What the head reads is the hidden state after the final norm, whatever a family calls that norm.
    head = model.get_output_embeddings()
    hooks = [
        model.register_forward_pre_hook(recorder.before_forward, with_kwargs=True),
        head.register_forward_pre_hook(recorder.before_head),
    ]
    token = _active.set(recorder)
    try:
        yield recorder
    finally:
        _active.reset(token)
        for hook in hooks:
            hook.remove()

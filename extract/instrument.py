"""See and silence attention heads of a stock transformers model, through its AttentionInterface."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.errors import UserError
from extract.keys import Branching, Keys

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "retrieval_heads"
"""Under this name the attention function stands in transformers' registry."""

_active: ContextVar["Recorder | None"] = ContextVar("recorder", default=None)


class Recorder:
    """What every head of the last query position looks at, reduced on the device inside the attention function.

    One forward with a query of length 1 computes its softmax rows itself; a longer query goes to SDPA, and only its
    last row is computed besides. After each forward `argmax` and `mass` hold that forward's results.

    Args:
        model: The model to instrument (see `recording`).

    Attributes:
        columns: Weights of keys, to sum attention over chosen keys; None records no masses. [batch, key, column].
        silence: Heads whose output is taken away before the output projection; None silences none.
            [batch, layer, head].
        fill: What a silenced head's output becomes, by layer, [batch, head, vsize]; None makes it zero.
        prompt: Keys and values of each layer that stand before those of the batch, [prompt, kvhead, key, size]: rows
            that branch from one prompt share them. None: there are none.
        branching: Which prompt each row goes on.
        averaging: Record the mean output of each head over a forward's positions.
        averages: These means by layer, [batch, head, vsize].
        keeping: Keep whole softmax rows, of the last query alone.
        rows: These rows. [batch, layer, head, key].
        argmax: Most attended key of each head. [batch, layer, head].
        mass: Attention on the keys of each column, in float32. [batch, layer, head, column].
        hidden: What the LM head reads at the last position: the final hidden state. [batch, hidden].

    """

    def __init__(self, model: "PreTrainedModel") -> None:
        config = model.config.get_text_config(decoder=True)
        self.layers, self.heads = int(config.num_hidden_layers), int(config.num_attention_heads)
        self.columns: Float[Tensor, "batch key column"] | None = None
        self.silence: Bool[Tensor, "batch layer head"] | None = None
        self.fill: dict[int, Float[Tensor, "batch head vsize"]] | None = None
        self.prompt: list[tuple[Tensor, Tensor]] | None = None
        self.branching: Branching | None = None
        self.averaging = False
        self.averages: dict[int, Float[Tensor, "batch head vsize"]] = {}
        self.keeping = False
        self.hidden: Float[Tensor, "batch hidden"] = torch.empty(0)
        self._kind = type(model).__name__
        self._argmax: dict[int, Int[Tensor, "batch head"]] = {}
        self._mass: dict[int, Float[Tensor, "batch head column"]] = {}
        self._rows: dict[int, Float[Tensor, "batch head key"]] = {}
        self._bias: tuple[Tensor, Tensor] | None = None

    @property
    def argmax(self) -> Int[Tensor, "batch layer head"]:
        """Most attended key of each head at the last forward's last position."""
        return self._stack(self._argmax)

    @property
    def mass(self) -> Float[Tensor, "batch layer head column"]:
        """Attention on the keys of each column at the last forward's last position."""
        return self._stack(self._mass)

    @property
    def rows(self) -> Float[Tensor, "batch layer head key"]:
        """Attention of each head on every key at the last forward's last position."""
        return self._stack(self._rows)

    def _stack(self, results: dict[int, Tensor]) -> Tensor:
        """All layers side by side, on the last layer's device, where the logits are."""
        if len(self._argmax) != self.layers:
            raise UserError(
                f"{self._kind}: attention of {len(self._argmax)} of its {self.layers} layers went through "
                "transformers' AttentionInterface, so its heads cannot be seen; use a model class that supports it"
            )
        device = results[self.layers - 1].device
        return torch.stack([results[layer].to(device) for layer in range(self.layers)], dim=1)

    def begin(self) -> None:
        """Forget the last forward. Called before each one."""
        self._argmax.clear()
        self._mass.clear()
        self._rows.clear()
        self._bias = None

    def attend(
        self,
        module: torch.nn.Module,
        query: Float[Tensor, "batch head query size"],
        key: Float[Tensor, "batch kvhead key size"],
        value: Float[Tensor, "batch kvhead key vsize"],
        mask: Tensor | None,
        scaling: float,
    ) -> Float[Tensor, "batch query head vsize"]:
        """Attention of a one-token query: softmax rows are formed, reduced to argmax and masses, and used."""
        batch, heads, _, size = query.shape
        groups = key.shape[1]
        rows = query.reshape(batch * groups, heads // groups, size)
        parts = [Keys(key, value)]
        if self.prompt is not None:
            parts.insert(0, Keys(*self.prompt[int(module.layer_idx)], self.branching))  # type: ignore[arg-type]
        weights = self._weights(rows, parts, mask, scaling, groups)
        self._reduce(module, weights.view(batch, heads, -1))
        shares = weights.to(value.dtype).split([part.length for part in parts], dim=-1)
        outputs = [part.values_of(share) for part, share in zip(parts, shares, strict=True)]
        return functools.reduce(torch.add, outputs).view(batch, 1, heads, value.shape[3])

    def last_row(
        self,
        module: torch.nn.Module,
        query: Float[Tensor, "batch head query size"],
        key: Float[Tensor, "batch kvhead key size"],
        mask: Tensor | None,
        scaling: float,
    ) -> None:
        """Record the last row of a longer query; its output is computed elsewhere."""
        batch, heads, _, size = query.shape
        groups = key.shape[1]
        row = query[:, :, -1].reshape(batch * groups, heads // groups, size)
        part = Keys(key, key)
        weights = self._weights(row, [part], None if mask is None else mask[:, :, -1:], scaling, groups)
        self._reduce(module, weights.view(batch, heads, -1))

    def _weights(
        self,
        rows: Float[Tensor, "bg share size"],
        parts: list[Keys],
        mask: Tensor | None,
        scaling: float,
        groups: int,
    ) -> Float[Tensor, "bg share key"]:
        """Softmax rows in float32, as the eager functions of transformers compute them."""
        if len(parts) > 1:
            logits = torch.cat([part.logits_of(rows * scaling) for part in parts], dim=-1)
            if mask is not None:
                logits += self._additive(mask, rows.dtype, groups)
        elif mask is None:
            logits = torch.bmm(rows * scaling, parts[0].keys.flatten(0, 1).transpose(1, 2))
        else:
            bias = self._additive(mask, rows.dtype, groups)
            logits = torch.baddbmm(bias, rows, parts[0].keys.flatten(0, 1).transpose(1, 2), alpha=scaling)
        return torch.softmax(logits, dim=-1, dtype=torch.float32)

    def _additive(self, mask: Tensor, dtype: torch.dtype, groups: int) -> Tensor:
        """The mask as a bias of 0 and the dtype's lowest value, [batch × group, 1, key]; once for all layers."""
        if self._bias is None or self._bias[0] is not mask:
            bias = mask
            if mask.dtype == torch.bool:
                bias = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
            self._bias = (mask, bias[:, 0].repeat_interleave(groups, dim=0))
        return self._bias[1]

    def _reduce(self, module: torch.nn.Module, weights: Float[Tensor, "batch head key"]) -> None:
        layer, keys = int(module.layer_idx), weights.shape[2]  # type: ignore[arg-type]
        if self.columns is not None and self.columns.shape[1] != keys:
            raise UserError(
                f"{self._kind}: layer {layer} attends over {keys} keys of {self.columns.shape[1]} (a sliding window), "
                "so key positions would be wrong; models with windows are not supported yet"
            )
        self._argmax[layer] = weights.argmax(dim=-1)
        if self.keeping:
            self._rows[layer] = weights
        if self.columns is not None:
            self._mass[layer] = torch.bmm(weights, self.columns.to(weights.device))

    def mute(self, module: torch.nn.Module, output: Float[Tensor, "batch query head vsize"]) -> Tensor:
        """Replace the silenced heads' outputs, which the output projection reads next."""
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        if self.averaging:
            self.averages[layer] = output.mean(dim=1)
        if self.silence is None:
            return output
        silenced = self.silence[:, layer, None, :, None].to(output.device)
        if self.fill is None:
            return output.masked_fill(silenced, 0)
        return torch.where(silenced, self.fill[layer][:, None], output)


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
    """The attention function of an instrumented model: transformers' SDPA, and the active recorder's part."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    recorder = _active.get()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    for special in ("softcap", "s_aux", "position_bias"):
        if options.get(special) is not None:
            kind = type(module).__name__
            raise UserError(f"{kind}: attention with '{special}' is not supported yet; choose another model")
    if recorder is not None and query.shape[2] == 1:
        output = recorder.attend(module, query, key, value, attention_mask, scale)
        return recorder.mute(module, output), None
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options
    )
    if recorder is None:
        return output, None
    recorder.last_row(module, query, key, attention_mask, scale)
    return recorder.mute(module, output), None


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def instrumented(model: "PreTrainedModel") -> Iterator[None]:
    """Route the model's attention through this module; its former implementation comes back at the end."""
    _register()
    former = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(former)


@contextmanager
def recording(recorder: Recorder, model: "PreTrainedModel") -> Iterator[Recorder]:
    """Every forward of an instrumented `model` within is recorded, and its chosen heads are silenced."""
    token = _active.set(recorder)

    def before(*_: object) -> None:
        recorder.begin()

    def keep(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        recorder.hidden = inputs[0][:, -1]

    head = model.get_output_embeddings()
    hooks = [model.register_forward_pre_hook(before), head.register_forward_pre_hook(keep)]
    try:
        yield recorder
    finally:
        _active.reset(token)
        for hook in hooks:
            hook.remove()

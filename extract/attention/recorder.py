"""The recorder: attention of the last query, reduced head by head within the attention function; and ablation."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from extract.attention.recording_plan import RecordingPlan
from extract.attention.shared_prefix import KeyValues
from extract.attention.softmax import Softmax, additive_bias
from extract.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """What one layer's attention read at a decode step: softmax rows over the keys that it holds, and their values.

    Attributes:
        weights: Attention of each head, in float32.
        parts: Values of the keys: a shared prefix first, if there is one, then each row's own.
        missing: Tokens of the sequence before the first of these keys: they have left a sliding window.
        module: The attention module.

    """

    weights: Float[Tensor, "batch head key"]
    parts: list[KeyValues]
    missing: int
    module: torch.nn.Module


class Recorder:
    """Attention of every head at the last query position, reduced on the device within the attention function.

    A forward of one token (a decode step) computes its softmax rows itself. A longer query (prefill) goes to PyTorch's
    attention, and only its last row is computed besides, so nothing of size n × n is formed. The results are those of
    the latest forward.

    Args:
        model: The instrumented model (see `extract.attention.recording`).
        plan: What to keep, and which heads to ablate.

    Attributes:
        argmax: Most attended key of each head, as a position in the padded sequence. [batch, layer, head].
        mass: Attention summed over the keys of each of the plan's columns, in float32. [batch, layer, head, column].
        rows: Softmax rows, if the plan keeps them, in float32. [batch, layer, head, key].
        kept: By layer, what a decode step's attention read, if the plan keeps it.
        hidden: Final hidden state at the last position: what the LM head reads. [batch, hidden].

    Raises:
        UserError: the plan ablates or scales heads of another model.

    """

    def __init__(self, model: "PreTrainedModel", plan: RecordingPlan) -> None:
        config = model.config.get_text_config(decoder=True)
        self._layers, self._heads = int(config.num_hidden_layers), int(config.num_attention_heads)
        self._class, self._device, self._plan = type(model).__name__, model.device, plan
        self._check_heads()
        self.hidden: Float[Tensor, "batch hidden"] = torch.empty(0)
        self._argmax: dict[int, Int[Tensor, "batch head"]] = {}
        self._mass: dict[int, Float[Tensor, "batch head column"]] = {}
        self._rows: dict[int, Float[Tensor, "batch head key"]] = {}
        self.kept: dict[int, LayerAttention] = {}
        self._sums: dict[int, Float[Tensor, "batch head vsize"]] = {}
        self._summed: dict[int, int] = {}
        self._biases: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}
        self._past = 0

    def _check_heads(self) -> None:
        for name, chosen in (("ablate", self._plan.ablate), ("scale", self._plan.scale)):
            if chosen is not None and chosen.shape[1:] != (self._layers, self._heads):
                layers, heads = chosen.shape[1:]
                own = f"{self._layers} × {self._heads}"
                raise UserError(f"{name} names {layers} layers × {heads} heads, but {self._class} has {own}")

    @property
    def argmax(self) -> Int[Tensor, "batch layer head"]:
        """Most attended key of each head at the last position."""
        return self._stacked(self._argmax)

    @property
    def mass(self) -> Float[Tensor, "batch layer head column"]:
        """Attention of each head at the last position, summed over the keys of each column."""
        return self._stacked(self._mass)

    @property
    def rows(self) -> Float[Tensor, "batch layer head key"]:
        """Attention of each head at the last position on every key."""
        return self._stacked(self._rows)

    def _stacked(self, results: dict[int, Tensor]) -> Tensor:
        """All layers in one tensor, on the device of the model's inputs (accelerate may spread layers over several)."""
        if len(self._argmax) != self._layers:
            raise UserError(
                f"{self._class}: attention of {len(self._argmax)} of its {self._layers} layers went through "
                "transformers' AttentionInterface, so its heads cannot be recorded; use a model class that supports it"
            )
        return torch.stack([results[layer].to(self._device) for layer in range(self._layers)], dim=1)

    def take_mean_outputs(self) -> dict[int, Float[Tensor, "batch head vsize"]]:
        """Mean output of each head over all positions since the last call, by layer, if the plan asks for it."""
        means = {layer: total / self._summed[layer] for layer, total in self._sums.items()}
        self._sums, self._summed = {}, {}
        return means

    def before_forward(self, model: torch.nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        """Hook of the model: forget the previous forward, and note how many tokens the cache has processed."""
        del model, args
        for results in (self._argmax, self._mass, self._rows, self.kept, self._biases):
            results.clear()
        cache = inputs.get("past_key_values")
        self._past = 0 if cache is None else cache.get_seq_length()

    def before_head(self, head: torch.nn.Module, args: tuple[Float[Tensor, "batch query hidden"], ...]) -> None:
        """Hook of the LM head: keep the last position of what it reads."""
        del head
        self.hidden = args[0][:, -1].to(self._device)

    def attend(
        self,
        module: torch.nn.Module,
        query: Float[Tensor, "batch head query size"],
        key: Float[Tensor, "batch kvhead key size"],
        value: Float[Tensor, "batch kvhead key vsize"],
        mask: Tensor | None,
        softmax: Softmax,
    ) -> Float[Tensor, "batch query head vsize"]:
        """Attention of a query of one token: its softmax rows are formed, recorded, and used for the output."""
        batch, heads = query.shape[:2]
        parts = [KeyValues(key, value)]
        if self._plan.prefix is not None:
            # The prompt's keys come first: argmax and columns count positions from the start of the prompt.
            keys, values = self._prefix_of(module, key)
            parts.insert(0, KeyValues(keys, values, self._plan.prefix.branching))
        weights = self._weights(query, parts, mask, softmax)
        self._reduce(module, weights.view(batch, heads, -1), query.shape[2])
        if self._plan.keep_values:
            missing = self._past + 1 - weights.shape[2]
            layer = int(module.layer_idx)  # type: ignore[arg-type]
            self.kept[layer] = LayerAttention(weights.view(batch, heads, -1), parts, missing, module)
        # One softmax over all parts, then each part's share of the weights on its own values.
        shares = weights.to(value.dtype).split([part.length for part in parts], dim=-1)
        outputs = [part.weighted_values(share) for part, share in zip(parts, shares, strict=True)]
        return functools.reduce(torch.add, outputs).view(batch, 1, heads, value.shape[3])

    def _prefix_of(self, module: torch.nn.Module, key: Tensor) -> tuple[Tensor, Tensor]:
        """The shared prompts' keys and values as this layer's attention reads them."""
        assert self._plan.prefix is not None
        keys, values = self._plan.prefix.layers[int(module.layer_idx)]  # type: ignore[arg-type]
        if hasattr(module, "expand_kv"):  # multi-head latent attention caches them compressed
            keys, values = module.expand_kv(keys, values)  # type: ignore[operator]
        if (keys.shape[1], keys.shape[3]) != (key.shape[1], key.shape[3]):
            raise UserError(
                f"{self._class}: its cache keeps other keys than its attention reads, so conditions cannot share a "
                "prompt's; choose another model"
            )
        return keys, values

    def record_last_row(
        self,
        module: torch.nn.Module,
        query: Float[Tensor, "batch head query size"],
        key: Float[Tensor, "batch kvhead key size"],
        mask: Tensor | None,
        softmax: Softmax,
    ) -> None:
        """Record the last row of a longer query, whose output is computed elsewhere."""
        last = None if mask is None else mask[:, :, -1:]
        # Values are not read here, so the keys stand in for them.
        weights = self._weights(query[:, :, -1:], [KeyValues(key, key)], last, softmax)
        self._reduce(module, weights.view(*query.shape[:2], -1), query.shape[2])

    def _weights(
        self, query: Float[Tensor, "batch head 1 size"], parts: list[KeyValues], mask: Tensor | None, softmax: Softmax
    ) -> Float[Tensor, "bg share key"]:
        """Softmax rows of one query, in float32."""
        batch, heads, _, size = query.shape
        groups = parts[-1].keys.shape[1]
        bias = None if mask is None else self._bias_of(mask, query.dtype, groups)
        return softmax.rows(query.reshape(batch * groups, heads // groups, size), parts, bias)

    def _bias_of(self, mask: Tensor, dtype: torch.dtype, groups: int) -> Float[Tensor, "bg 1 key"]:
        """The mask as a bias, made once for all layers that get the same mask."""
        name = id(mask), mask.device
        if name not in self._biases:
            # The mask is kept with its bias: were it freed, another mask could get its id.
            self._biases[name] = mask, additive_bias(mask, dtype, groups)
        return self._biases[name][1]

    def _reduce(self, module: torch.nn.Module, weights: Float[Tensor, "batch head key"], queries: int) -> None:
        """Reduce the last query's weights to what the plan asks for."""
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        # A sliding-window layer holds only the last keys: those before them get weight 0, so that an index is a
        # position of the sequence in every layer.
        missing = self._past + queries - weights.shape[2]
        if missing < 0 or weights.shape[1] != self._heads:
            raise UserError(
                f"{self._class}: layer {layer} has {weights.shape[1]} heads and {weights.shape[2]} keys instead of "
                f"{self._heads} and at most {self._past + queries}, so its heads cannot be distinguished"
            )
        if missing:
            weights = torch.nn.functional.pad(weights, (missing, 0))
        # Results stay on the layer's device: a copy here would make every layer wait for the one before.
        self._argmax[layer] = weights.argmax(dim=-1)
        if self._plan.full_rows:
            self._rows[layer] = weights
        if self._plan.columns is not None:
            self._mass[layer] = torch.bmm(weights, self._plan.columns.to(weights.device))

    def apply_intervention(self, module: torch.nn.Module, output: Float[Tensor, "batch query head vsize"]) -> Tensor:
        """Replace or scale the outputs of heads, at every query of the forward, before the output projection."""
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        if self._plan.mean_outputs:  # before ablation, and over all chunks of a prompt
            total = output.sum(dim=1, dtype=torch.float32)
            self._sums[layer] = total + self._sums[layer] if layer in self._sums else total
            self._summed[layer] = self._summed.get(layer, 0) + output.shape[1]
        if self._plan.scale is not None:
            output = output * self._plan.scale[:, layer, None, :, None].to(output)
        if self._plan.ablate is None:
            return output
        # [batch, 1, head, 1]: the same heads at every query.
        ablated = self._plan.ablate[:, layer, None, :, None].to(output.device)
        if self._plan.replacement is None:
            return output.masked_fill(ablated, 0)
        return torch.where(ablated, self._plan.replacement[layer][:, None].to(output.dtype), output)

"""What the attention function of `extract.attention.interface` records of each head, and which heads it ablates."""

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention.shared_prefix import Branching, Keys
from extract.attention.softmax import Softmax, additive
from extract.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Recorder:
    """What every head of the last query position looks at, reduced on the device inside the attention function.

    One forward with a query of length 1 computes its softmax rows itself; a longer query goes to SDPA, and only its
    last row is computed besides. After each forward `argmax` and `mass` hold that forward's results.

    Args:
        model: The model to instrument (see `extract.attention.recording`).

    Attributes:
        columns: Weights of keys, to sum attention over chosen keys; None records no masses. [batch, key, column].
        ablate: Heads whose output is taken away before the output projection; None ablates none.
            [batch, layer, head].
        fill: What a ablated head's output becomes, by layer, [batch, head, vsize]; None makes it zero.
        prompt: Keys and values of each layer that stand before those of the batch, [prompt, kvhead, key, size]: rows
            that branch from one prompt share them. None: there are none.
        branching: Which prompt each row goes on.
        averaging: Sum up the outputs of each head over all positions, until `take_averages`.
        keeping: Keep whole softmax rows, of the last query alone.
        rows: These rows. [batch, layer, head, key].
        argmax: Most attended key of each head. [batch, layer, head].
        mass: Attention on the keys of each column, in float32. [batch, layer, head, column].
        hidden: What the LM head reads at the last position: the final hidden state. [batch, hidden].
        device: Of the model's inputs; everything recorded is put there.

    """

    def __init__(self, model: "PreTrainedModel") -> None:
        config = model.config.get_text_config(decoder=True)
        self.layers, self.heads = int(config.num_hidden_layers), int(config.num_attention_heads)
        self.columns: Float[Tensor, "batch key column"] | None = None
        self.ablate: Bool[Tensor, "batch layer head"] | None = None
        self.fill: dict[int, Float[Tensor, "batch head vsize"]] | None = None
        self.prompt: list[tuple[Tensor, Tensor]] | None = None
        self.branching: Branching | None = None
        self.averaging = False
        self._sums: dict[int, Float[Tensor, "batch head vsize"]] = {}
        self._summed: dict[int, int] = {}
        self.keeping = False
        self.hidden: Float[Tensor, "batch hidden"] = torch.empty(0)
        self.device = model.device
        self._kind = type(model).__name__
        self._argmax: dict[int, Int[Tensor, "batch head"]] = {}
        self._mass: dict[int, Float[Tensor, "batch head column"]] = {}
        self._rows: dict[int, Float[Tensor, "batch head key"]] = {}
        self._biases: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}
        self._past = 0

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
        """All layers side by side, on the device of the model's inputs."""
        if len(self._argmax) != self.layers:
            raise UserError(
                f"{self._kind}: attention of {len(self._argmax)} of its {self.layers} layers went through "
                "transformers' AttentionInterface, so its heads cannot be seen; use a model class that supports it"
            )
        return torch.stack([results[layer].to(self.device) for layer in range(self.layers)], dim=1)

    def heads_at(self, heads: Iterable[tuple[int, int]]) -> Bool[Tensor, "layer head"]:
        """Heads by layer and index, for `ablate`.

        Raises:
            UserError: the model has no such head.

        """
        chosen = torch.zeros(self.layers, self.heads, dtype=torch.bool)
        for layer, head in heads:
            if not (0 <= layer < self.layers and 0 <= head < self.heads):
                raise UserError(
                    f"{self._kind} has no head {layer}-{head}: it has {self.layers} layers × {self.heads} heads"
                )
            chosen[layer, head] = True
        return chosen

    def begin(self, past: int) -> None:
        """Forget the last forward. Called before each one, with the number of tokens that its cache has seen."""
        if self.ablate is not None and self.ablate.shape[1:] != (self.layers, self.heads):
            layers, heads = self.ablate.shape[1:]
            raise UserError(
                f"ablate names {layers} layers × {heads} heads, but {self._kind} has {self.layers} × {self.heads}"
            )
        self._argmax.clear()
        self._mass.clear()
        self._rows.clear()
        self._biases.clear()
        self._past = past

    def attend(
        self,
        module: torch.nn.Module,
        query: Float[Tensor, "batch head query size"],
        key: Float[Tensor, "batch kvhead key size"],
        value: Float[Tensor, "batch kvhead key vsize"],
        mask: Tensor | None,
        softmax: Softmax,
    ) -> Float[Tensor, "batch query head vsize"]:
        """Attention of a one-token query: softmax rows are formed, reduced to argmax and masses, and used."""
        batch, heads = query.shape[:2]
        parts = [Keys(key, value)]
        if self.prompt is not None:
            parts.insert(0, Keys(*self._prompt_of(module, key), self.branching))
        weights = self._weights(query, parts, mask, softmax)
        self._reduce(module, weights.view(batch, heads, -1), query.shape[2])
        shares = weights.to(value.dtype).split([part.length for part in parts], dim=-1)
        outputs = [part.values_of(share) for part, share in zip(parts, shares, strict=True)]
        return functools.reduce(torch.add, outputs).view(batch, 1, heads, value.shape[3])

    def _prompt_of(self, module: torch.nn.Module, key: Tensor) -> tuple[Tensor, Tensor]:
        """The prompt's keys and values as this layer's attention reads them; MLA's cache keeps them compressed."""
        assert self.prompt is not None
        keys, values = self.prompt[int(module.layer_idx)]  # type: ignore[arg-type]
        if hasattr(module, "expand_kv"):
            keys, values = module.expand_kv(keys, values)  # type: ignore[operator]
        if (keys.shape[1], keys.shape[3]) != (key.shape[1], key.shape[3]):
            raise UserError(
                f"{self._kind}: its cache keeps other keys than its attention reads, so conditions cannot share a "
                "prompt's; choose another model"
            )
        return keys, values

    def last_row(
        self,
        module: torch.nn.Module,
        query: Float[Tensor, "batch head query size"],
        key: Float[Tensor, "batch kvhead key size"],
        mask: Tensor | None,
        softmax: Softmax,
    ) -> None:
        """Record the last row of a longer query; its output is computed elsewhere."""
        last = None if mask is None else mask[:, :, -1:]
        weights = self._weights(query[:, :, -1:], [Keys(key, key)], last, softmax)
        self._reduce(module, weights.view(*query.shape[:2], -1), query.shape[2])

    def _weights(
        self, query: Float[Tensor, "batch head 1 size"], parts: list[Keys], mask: Tensor | None, softmax: Softmax
    ) -> Float[Tensor, "bg share key"]:
        """Softmax rows in float32. The mask becomes a bias once for all layers that have it."""
        batch, heads, _, size = query.shape
        groups = parts[-1].keys.shape[1]
        bias = None
        if mask is not None:
            place = id(mask), mask.device
            if place not in self._biases:
                self._biases[place] = (
                    mask,
                    additive(mask, query.dtype, groups),
                )  # the mask is kept, so its id is its own
            bias = self._biases[place][1]
        return softmax.rows(query.reshape(batch * groups, heads // groups, size), parts, bias)

    def _reduce(self, module: torch.nn.Module, weights: Float[Tensor, "batch head key"], queries: int) -> None:
        """Keep what is asked of the last query's weights, over all positions of the sequence.

        A layer with a window holds its last keys alone; those before them have no weight.
        """
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        before = self._past + queries - weights.shape[2]
        if before < 0 or weights.shape[1] != self.heads:
            raise UserError(
                f"{self._kind}: layer {layer} has {weights.shape[1]} heads and {weights.shape[2]} keys instead of "
                f"{self.heads} and at most {self._past + queries}, so its heads cannot be told apart"
            )
        if before:
            weights = torch.nn.functional.pad(weights, (before, 0))
        self._argmax[layer] = weights.argmax(dim=-1)
        if self.keeping:
            self._rows[layer] = weights
        if self.columns is not None:
            self._mass[layer] = torch.bmm(weights, self.columns.to(weights.device))

    def take_averages(self) -> dict[int, Float[Tensor, "batch head vsize"]]:
        """Mean output of each head over all positions since the last call, by layer."""
        means = {layer: total / self._summed[layer] for layer, total in self._sums.items()}
        self._sums, self._summed = {}, {}
        return means

    def apply_ablation(self, module: torch.nn.Module, output: Float[Tensor, "batch query head vsize"]) -> Tensor:
        """Replace the ablated heads' outputs, which the output projection reads next."""
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        if self.averaging:
            total = output.sum(dim=1, dtype=torch.float32)
            self._sums[layer] = total + self._sums[layer] if layer in self._sums else total
            self._summed[layer] = self._summed.get(layer, 0) + output.shape[1]
        if self.ablate is None:
            return output
        ablated = self.ablate[:, layer, None, :, None].to(output.device)
        if self.fill is None:
            return output.masked_fill(ablated, 0)
        return torch.where(ablated, self.fill[layer][:, None].to(output.dtype), output)

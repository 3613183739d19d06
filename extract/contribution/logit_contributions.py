"""Logit contributions of recorded decode steps, computed for several steps together."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from extract.attention import KeyValues, LayerAttention, Recorder, RecordingPlan, recording
from extract.contribution.discovery import readout_of
from extract.contribution.readout import Readout
from extract.contribution.sources import Sources
from extract.scores import logit_contribution

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_STEPS = 8
"""Most decode steps whose contributions are computed together: each reads all values and output projections once."""
MOST_BYTES = 2**28
"""Most memory of attention rows that wait for it (256 MiB)."""


_Sums = tuple[Tensor, Tensor]
"""Attention on sources and their contributions, each [batch, step, head, source]."""


@dataclass(frozen=True, eq=False)
class _Step:
    """What a recorded step leaves: attention, inputs of norms (by module), and its direction of the stream."""

    kept: dict[int, LayerAttention]
    norm_inputs: dict[torch.nn.Module, Tensor]
    direction: Tensor


class LogitContributions:
    """Logit contributions of each source through each head, at each recorded step.

    What a step's attention formed is kept; its sums are computed when several steps have come together, so that values
    and projections are read once for all of them. Memory grows with the number of keys, and never with its square.
    Each head's attention on each source is summed on the way, so that recorded steps need no `columns` for it.

    Args:
        model: The model, instrumented while steps run.
        sources: Which keys belong to which source.
        steps: Most steps that are computed together.

    Raises:
        UserError: the model's readout is not known (see `extract.contribution.readout_of`).

    """

    def __init__(self, model: "PreTrainedModel", sources: Sources, steps: int = MOST_STEPS) -> None:
        self.readout: Readout = readout_of(model)
        self._model, self._sources, self._most = model, sources, steps
        self._norms = {layer.norm_module for layer in self.readout.layers} - {None} | {self.readout.norm_module}
        self._norm_inputs: dict[torch.nn.Module, Tensor] = {}
        self._pending: list[_Step] = []
        self._done: list[Tensor] = []
        self._attended: list[Tensor] = []

    @contextmanager
    def recording(self, plan: RecordingPlan) -> Iterator[Recorder]:
        """Record a decode step as `extract.attention.recording` does, with what contributions need besides."""
        self._norm_inputs = {}
        hooks = [module.register_forward_pre_hook(self._before_norm) for module in self._norms if module is not None]
        try:
            with recording(self._model, replace(plan, keep_values=True)) as recorder:
                yield recorder
        finally:
            for hook in hooks:
                hook.remove()

    def _before_norm(self, norm: torch.nn.Module, args: tuple[Any, ...]) -> None:
        """Hook of a norm: keep the last position of what it reads."""
        self._norm_inputs[norm] = args[0][:, -1]

    def add(self, recorder: Recorder, generated: Int[Tensor, "batch"]) -> None:
        """Take over the step that was just recorded, whose query chose the token `generated`."""
        kept = {layer: self._read(attention) for layer, attention in recorder.kept.items()}
        direction = self.readout.direction(generated, self._norm_inputs[self.readout.norm_module])
        self._pending.append(_Step(kept, self._norm_inputs, direction))
        size = sum(attention.weights.nbytes for attention in kept.values())
        if len(self._pending) >= self._most or size * (len(self._pending) + 1) > MOST_BYTES:
            self._flush()

    def result(self) -> Float[Tensor, "batch step layer head source"]:
        """Contributions of all steps so far, on the model's device."""
        self._flush()
        return torch.cat(self._done, dim=1)

    def attention(self) -> Float[Tensor, "batch step layer head source"]:
        """Attention of each head on each source at all steps so far, in float32."""
        self._flush()
        return torch.cat(self._attended, dim=1)

    def _read(self, attention: LayerAttention) -> LayerAttention:
        """Attention on the keys of sources alone, where they are few."""
        columns = self._sources.visible(attention.missing, attention.weights.shape[2])
        if columns is None:
            return attention
        return replace(attention, weights=attention.weights.index_select(2, columns.to(attention.weights.device)))

    def _flush(self) -> None:
        """Compute the waiting steps."""
        if not self._pending:
            return
        steps, self._pending = self._pending, []
        layers = [self._layer(layer, steps) for layer in range(len(self.readout.layers))]
        for results, found in zip((self._attended, self._done), zip(*layers, strict=True), strict=True):
            # [batch, layer, step, head, source] → [batch, step, layer, head, source]
            results.append(torch.stack([one.to(self._model.device) for one in found], dim=1).transpose(1, 2))

    def _layer(self, layer: int, steps: list[_Step]) -> _Sums:
        """One layer's sums; steps are taken together while the layer holds the same first key."""
        write = self.readout.layers[layer]
        at = None if write.norm_module is None else torch.stack([s.norm_inputs[write.norm_module] for s in steps], 1)
        # One product with W_O for all rows and steps: [batch, step, head, size].
        directions = write.pull_back(torch.stack([step.direction for step in steps], dim=1), at)
        kept = [step.kept[layer] for step in steps]
        borders = [0, *(i for i in range(1, len(kept)) if kept[i].missing != kept[i - 1].missing), len(kept)]
        found = [
            self._together(kept[start:stop], directions[:, start:stop]) for start, stop in itertools.pairwise(borders)
        ]
        attended, contributed = (torch.cat(part, dim=1) for part in zip(*found, strict=True))
        return attended, contributed

    def _together(self, kept: list[LayerAttention], directions: Float[Tensor, "batch step head vsize"]) -> _Sums:
        """Steps whose keys are first parts of the last one's."""
        last, (batch, steps, heads, size) = kept[-1], directions.shape
        keys, groups = sum(part.length for part in last.parts), last.parts[-1].keys.shape[1]
        columns = self._sources.visible(last.missing, keys)
        # Rows by batch × KV head, all steps' heads that share it: one product with the values.
        rows = directions.unflatten(2, (groups, -1)).transpose(1, 2).reshape(batch * groups, -1, size)
        parts = self._parts(last.parts, last.missing)
        logits = [KeyValues(part.values, part.values, part.branching).query_products(rows) for part in parts]
        value_logits = (logits[0] if len(logits) == 1 else torch.cat(logits, dim=-1)).float()
        weights = self._weights([attention.weights for attention in kept], groups, value_logits.shape[-1])
        sources = self._sources.weights(last.missing, keys, columns).to(value_logits.device)
        split = (batch, groups, steps, heads // groups, -1)
        attended = torch.bmm(weights, sources).view(*split).transpose(1, 2).flatten(2, 3)
        found = logit_contribution(weights, value_logits.view(batch, steps * heads, -1), sources)
        return attended, found.view(*split).transpose(1, 2).flatten(2, 3)

    def _weights(self, kept: list[Tensor], groups: int, keys: int) -> Float[Tensor, "batch row key"]:
        """Attention rows of all steps, by KV head, step and head that shares it; later keys have weight 0."""
        batch, heads, _ = kept[0].shape
        if len(kept) == 1:
            return kept[0]
        rows = kept[0].new_empty(batch, groups, len(kept), heads // groups, keys)
        for step, weights in enumerate(kept):
            rows[:, :, step, :, : weights.shape[2]] = weights.unflatten(1, (groups, -1))
            rows[:, :, step, :, weights.shape[2] :] = 0
        return rows.flatten(1, 3)

    def _parts(self, parts: list[KeyValues], missing: int) -> list[KeyValues]:
        """The keys of sources alone, where they are few; the first part begins after `missing` columns."""
        found = []
        for part in parts:
            own = self._sources.visible(missing, part.length)
            if own is None:
                return parts
            values = part.values.index_select(2, own.to(part.values.device))
            found.append(KeyValues(values, values, part.branching))
            missing += part.length
        return found

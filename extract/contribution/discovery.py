"""Discovery of a model's readout by a traced forward: every step from head to logit is found, and checked."""

import itertools
from typing import TYPE_CHECKING, NoReturn
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import linear

from extract.attention import RecordingPlan, instrumented, recording
from extract.contribution.frozen_norm import TOLERANCE, FrozenNorm
from extract.contribution.readout import LayerWrite, Readout
from extract.contribution.trace import Call, Trace, tracing
from extract.errors import UserError
from extract.utils import frozen_inference

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 4
"""Tokens of the traced forward, each a sequence of its own."""


_readouts: "WeakKeyDictionary[PreTrainedModel, Readout]" = WeakKeyDictionary()


def readout_of(model: "PreTrainedModel") -> Readout:
    """The readout of a model, found by one short forward at first use.

    Raises:
        UserError: logits are not a linear function of the heads' outputs once norms are frozen, as far as is known;
            names the model and the reason.

    """
    if model not in _readouts:
        _readouts[model] = discover(model)
    return _readouts[model]


@frozen_inference()
def discover(model: "PreTrainedModel") -> Readout:
    """Find how heads write to the logits, and check each step on the values of a short forward.

    Raises:
        UserError: a step is not one of those known.

    """
    vocabulary = int(model.config.vocab_size)
    tokens = torch.arange(1, TOKENS + 1, device=model.device)[:, None] * (vocabulary // (TOKENS + 1))
    plan = RecordingPlan(keep_values=True)
    with instrumented(model), tracing(model) as trace, recording(model, plan) as recorder:
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    attentions = [recorder.kept[layer].module for layer in sorted(recorder.kept)]
    return _Discovery(model, trace).readout(attentions, logits)


class _Discovery:
    """The steps of one model, from its trace."""

    def __init__(self, model: "PreTrainedModel", trace: Trace) -> None:
        self.model, self.trace, self.config = model, trace, model.config
        self.names = {module: name for name, module in model.named_modules()}

    def _refuse(self, reason: str) -> NoReturn:
        raise UserError(
            f"{type(self.model).__name__}: {reason}, so logit contributions are not known; choose another model, or "
            "leave contribution out"
        )

    def readout(self, attentions: list[torch.nn.Module], logits: Tensor) -> Readout:
        """All steps of the model."""
        blocks = [self.trace.of(self._block(attention)) for attention in attentions]
        writes = tuple(self._layer(*pair) for pair in zip(attentions, blocks, strict=True))
        for block, following in itertools.pairwise(blocks):
            if not torch.equal(block.written, following.read):
                self._refuse("its residual stream changes between layers")
        head = self.trace.of(self.model.get_output_embeddings())
        final = [
            call
            for call in self.trace.calls
            if torch.equal(call.read, blocks[-1].written) and _same(call.written, head.read)
        ]
        norm = FrozenNorm.of(final[0].module) if final else None
        if norm is None:
            self._refuse("what its LM head reads is no known norm of its last layer's output")
        return Readout(
            writes, norm, final[0].module, self._weight(head, "LM head"), self._logit_factor(head.written, logits)
        )

    def _block(self, attention: torch.nn.Module) -> torch.nn.Module:
        """The decoder layer that an attention module belongs to."""
        return self.model.get_submodule(self.names[attention].rpartition(".")[0])

    def _weight(self, call: Call, what: str) -> Tensor:
        """Weights [output, input] of a projection; its output is checked."""
        weight = getattr(call.module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
            self._refuse(f"its {what} has no plain weights (is it quantized?)")
        if weight.is_meta:
            self._refuse(f"its {what} is offloaded")
        shape, bias = (call.written.shape[-1], call.read.shape[-1]), getattr(call.module, "bias", None)
        plain = [matrix.detach() for matrix in (weight, weight.T) if matrix.shape == shape]  # GPT-2's is transposed
        found = [matrix for matrix in plain if _close(call.written, linear(call.read, matrix, bias), call.written)]
        if not found:
            self._refuse(f"its {what} is no plain linear map")
        return found[0]

    def _layer(self, attention: torch.nn.Module, block: Call) -> LayerWrite:
        """How one layer's heads write to the residual stream."""
        call = self.trace.of(attention)
        projection = self._projection(call)
        norm, module, written = self._post_norm(call, block)
        factor = float(getattr(self.config, "residual_multiplier", 1.0) or 1.0)
        self._check_residual(block, written.float() * factor, factor)
        return LayerWrite(
            self._weight(projection, "output projection"),
            int(self.config.num_attention_heads),
            factor,
            norm,
            module,
        )

    def _projection(self, attention: Call) -> Call:
        """The module that makes the attention's result from all heads' outputs."""
        found = [call for call in self.trace.within(attention.name) if _same(call.written, attention.written)]
        found = [call for call in found if not isinstance(call.module, torch.nn.Dropout)]
        if not found:
            self._refuse("the last step of its attention is no projection")
        return found[0]

    def _post_norm(self, attention: Call, block: Call) -> tuple[FrozenNorm | None, torch.nn.Module | None, Tensor]:
        """The norm of the attention's output, if there is one, and what comes out of it."""
        written = attention.written
        for call in self.trace.within(block.name):
            if call.read is not written or call.name.startswith(f"{attention.name}."):
                continue
            if isinstance(call.module, torch.nn.Dropout):
                written = call.written
                continue
            norm = FrozenNorm.of(call.module)
            if norm is None:
                self._refuse(f"{type(call.module).__name__} after its attention is no known norm")
            return norm, call.module, call.written
        return None, None, written

    def _check_residual(self, block: Call, write: Tensor, factor: float) -> None:
        """Check that the attention's part is added to the stream, and reaches the layer's end unchanged."""
        calls, start, end = self.trace.within(block.name), block.read.float(), block.written.float()
        rest = end - start - write
        parts = [call.written for call in calls if call.written.shape == block.read.shape]
        parts += [parts[-1] + part for part in parts[:-1]]
        if not any(_close(rest, part.float() * factor, part, block.read, block.written) for part in parts):
            self._refuse("its layers do not add attention and feed-forward parts to the residual stream")

    def _logit_factor(self, head: Tensor, logits: Tensor) -> float:
        """Factor of the logits after the LM head."""
        divisor = getattr(self.config, "logits_scaling", None) or 1.0
        factor = float(getattr(self.config, "logit_scale", None) or 1.0) / float(divisor)
        capped, cap = head.float() * factor, getattr(self.config, "final_logit_softcapping", None)
        if cap is not None:
            capped = torch.tanh(capped / cap) * cap
        if not _close(logits, capped, capped):
            self._refuse("its logits are no known function of its LM head's output")
        return factor


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal values, whatever the shape."""
    return one.numel() == other.numel() and torch.equal(one.flatten(), other.flatten())


def _close(one: Tensor, other: Tensor, *scales: Tensor) -> bool:
    """Equal up to rounding, in the precision of the scales."""
    if one.shape != other.shape:
        return False
    size = max(float(scale.abs().max()) for scale in scales)
    return float((one.float() - other.float()).abs().max()) <= max(TOLERANCE[scale.dtype] for scale in scales) * size

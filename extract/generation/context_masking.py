"""A frozen LLM with partly masked contexts: greedy generation of many views together, and reads of the full context."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from extract.attention import PreallocatedLayer, RecordingPlan, instrumented, preallocated_cache, recording
from extract.generation.longrope import check_short
from extract.generation.prefix_cache import PrefixCache
from extract.generation.prompt_view import MaskMode, PromptView
from extract.generation.view_decoding import GenerationOutput, GenerationRequest, ViewDecoding
from extract.llm import LLM, is_windowed
from extract.utils import frozen_inference

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(frozen=True)
class LastQueryState:
    """State of the last query when every token is visible.

    Attributes:
        hidden: Final hidden state.
        attention: Attention of each head, layer-major, on every token so far.

    """

    hidden: Float[Tensor, "hidden"]
    attention: Float[Tensor, "head key"]


class ContextMaskedLLM:
    """The frozen model over views of prompts, with a prefix cache for each question.

    Args:
        llm: The frozen model.
        chunk: Tokens of a prompt that run in one forward, so that no mask is of size n × n.
        keep: Views kept for each question (see `PrefixCache`).

    Attributes:
        windowed: Whether a layer has a sliding window, so that no keys are kept.

    """

    def __init__(self, llm: LLM, chunk: int = 512, keep: int = 16) -> None:
        self.llm, self.chunk, self.windowed = llm, chunk, is_windowed(llm.model)
        self._prefixes = PrefixCache(llm.model, keep, self.windowed)
        self._ends = frozenset(llm.end_tokens)

    def exact_mask(self, mask: MaskMode) -> MaskMode:
        """The mode that gives the logits of `mask`: sliding windows count keys, so `packed` would widen them."""
        return "in_place" if mask == "packed" and self.windowed else mask

    @frozen_inference()
    def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationOutput]:
        """Run all requests, each distinct one once, those of similar length in one batch.

        Raises:
            UserError: a prompt exceeds the original length of the model's LongRoPE.

        """
        done: dict[GenerationRequest, GenerationOutput] = {}
        # `dict.fromkeys` drops equal requests, and keeps the order.
        for group in _by_length(list(dict.fromkeys(requests))):
            done.update(zip(group, self._generate(group), strict=True))
        return [done[request] for request in requests]

    def _generate(self, requests: list[GenerationRequest]) -> list[GenerationOutput]:
        """One batch: each view is prefilled on its own, then all decode together."""
        model, width = self.llm.model, max(len(request.view) for request in requests)
        check_short(model, max(request.view.end + request.limit for request in requests), "a prompt")
        cache = preallocated_cache(model, width + max(request.limit for request in requests))
        # Left-padded: all views end at column `width`, where their first decode step begins.
        for row, request in enumerate(requests):
            single = self._prefill(request.question, request.view, len(request.view) - 1)
            for layer, source in zip(cache.layers, single.layers, strict=True):
                assert isinstance(layer, PreallocatedLayer)
                assert isinstance(source, PreallocatedLayer)
                layer.write_row(row, width - len(request.view), source, len(requests))
        return ViewDecoding(model, requests, cache, width, self._ends, self._prefixes).run()

    def _prefill(self, question: int, view: PromptView, capacity: int) -> "DynamicCache":
        """Keys of all tokens of a view but the last, in a cache of its own."""
        cache, start = self._prefixes.start(question, view, capacity)
        for first in range(start, len(view) - 1, self.chunk):
            self._run(view, first, min(first + self.chunk, len(view) - 1), cache)
        return cache

    def _run(self, view: PromptView, start: int, end: int, cache: "DynamicCache") -> None:
        """Run the tokens of a view from `start` to `end` after the cached ones."""
        row = functools.partial(_row, device=self.llm.model.device)
        self.llm.model(
            input_ids=row(view.tokens[start:end]),
            position_ids=row(view.positions[start:end]),
            # Without masked tokens there is no mask, and the faster causal kernel applies.
            attention_mask=None if all(view.visible[:end]) else row(view.visible[:end]).long(),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )

    @frozen_inference()
    def read_full_context(self, question: int, view: PromptView) -> LastQueryState:
        """Hidden state and attention of a view's last token, every token being visible.

        Raises:
            UserError: a prompt exceeds the original length of the model's LongRoPE.

        """
        model = self.llm.model
        check_short(model, view.end, "a prompt")
        cache = self._prefill(question, view, len(view))
        with instrumented(model), recording(model, RecordingPlan(full_rows=True)) as recorder:
            self._run(view, len(view) - 1, len(view), cache)
        # The question's next read of the full context continues from these keys.
        self._prefixes.add(question, view, cache.layers, 0, 0)
        return LastQueryState(recorder.hidden[0].float(), recorder.rows[0].flatten(0, 1))

    def forget(self, question: int) -> None:
        """Free the keys that are kept for a question, when no request of it is to come."""
        self._prefixes.forget(question)


def _row(values: Sequence[Any], device: torch.device) -> Tensor:
    """A batch of one, without waiting for the device."""
    return torch.tensor([values]).to(device, non_blocking=True)


def _by_length(requests: list[GenerationRequest]) -> list[list[GenerationRequest]]:
    """Groups whose longest view is at most twice the shortest, for every row attends over the longest one's width."""
    groups: list[list[GenerationRequest]] = []
    for request in sorted(requests, key=lambda request: len(request.view)):
        if groups and len(request.view) <= 2 * len(groups[-1][0].view):
            groups[-1].append(request)
        else:
            groups.append([request])
    return groups

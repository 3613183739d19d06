"""Greedy decoding of a batch of prompt views after their cached keys, with the entropy of every step."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from extract.attention import PreallocatedLayer
from extract.generation.prefix_cache import PrefixCache
from extract.generation.prompt_view import PromptView
from extract.utils import DelayedReads

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True)
class GenerationRequest:
    """A generation to run. Equal requests are run once.

    Attributes:
        question: Number of the question it belongs to: its requests share cached keys.
        view: Prompt and answer so far.
        limit: Most tokens to generate, 1 or more.
        stop: Whether the generated tokens suffice; asked after each of them.

    """

    question: int
    view: PromptView
    limit: int
    stop: Callable[[Sequence[int]], bool]


@dataclass(frozen=True)
class GenerationOutput:
    """The generated tokens of a request.

    Attributes:
        tokens: Greedy tokens, without an end token.
        entropies: Entropy of the distribution that each token was chosen from, in nats.
        ended: Whether an end token followed.

    """

    tokens: tuple[int, ...]
    entropies: tuple[float, ...]
    ended: bool


class ViewDecoding:
    """Decodes a batch of requests; a row leaves the batch when its request is done.

    Args:
        model: The model.
        requests: The requests, one row each.
        cache: Keys of their views but the last token, right-aligned.
        width: Tokens of the longest view: all views end at this column.
        ends: End tokens.
        prefixes: Takes the keys of what was run.

    """

    def __init__(
        self,
        model: "PreTrainedModel",
        requests: list[GenerationRequest],
        cache: "DynamicCache",
        width: int,
        ends: frozenset[int],
        prefixes: PrefixCache,
    ) -> None:
        self.model, self.requests, self.cache, self.width = model, requests, cache, width
        self.ends, self.prefixes = ends, prefixes
        self.visible = self._visible().to(model.device, non_blocking=True)
        # Which requests have masked columns is known here: no step needs to ask the device.
        self.masked = [width > len(r.view) or not all(r.view.visible) for r in requests]
        self.position, self.next_position, self.token = (
            torch.tensor(values).to(model.device, non_blocking=True)
            for values in zip(*((r.view.positions[-1], r.view.end, r.view.tokens[-1]) for r in requests), strict=True)
        )
        self.live = list(range(len(requests)))
        self.generated: list[list[int]] = [[] for _ in requests]
        self.entropies: list[list[float]] = [[] for _ in requests]
        self.done: dict[int, GenerationOutput] = {}

    def _visible(self) -> Tensor:
        """Attention mask of all columns: padding and masked tokens are 0, tokens to come 1."""
        mask = torch.ones(len(self.requests), self.width + max(r.limit for r in self.requests), dtype=torch.long)
        for row, request in enumerate(self.requests):
            first = self.width - len(request.view)
            mask[row, :first] = 0
            mask[row, first : self.width] = torch.tensor(request.view.visible).long()
        return mask

    def run(self) -> list[GenerationOutput]:
        """Every request's output, in their order."""
        reads, running = DelayedReads(self.token.device), deque[tuple[int, list[int]]]()
        for step in range(max(request.limit for request in self.requests)):
            running.append((step, self.live))
            # `stop` reads the tokens on the host: on a GPU, those of a step while the next one runs.
            for values in reads.put(self._step(step)):
                self._add_tokens(*running.popleft(), values)
            if len(self.done) == len(self.requests):
                break
            self._drop_done()
        for values in reads.rest():
            self._add_tokens(*running.popleft(), values)
        return [self.done[number] for number in range(len(self.requests))]

    def _step(self, step: int) -> Float[Tensor, "2 row"]:
        """Run the latest token of each row: the next ones, exact in float32, and their entropies."""
        logits = self._logits(step)
        self.token = logits.argmax(dim=-1)
        self.position = self.next_position + step  # after the first step, which ran the view's last token
        # entr(p) = -p ln p, 0 at p = 0.
        entropies = torch.special.entr(torch.softmax(logits, dim=-1)).sum(dim=-1)
        return torch.stack([self.token.float(), entropies])

    def _logits(self, step: int) -> Tensor:
        """Logits after the latest token of each row, in float32."""
        logits: Tensor = self.model(
            input_ids=self.token[:, None],
            attention_mask=self.visible[:, : self.width + step] if any(self.masked[n] for n in self.live) else None,
            position_ids=self.position[:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1].float()

    def _add_tokens(self, step: int, live: list[int], values: NDArray[np.float32]) -> None:
        """Add the tokens of a step and their entropies to the requests that it ran."""
        for number, token, entropy in zip(live, *values.tolist(), strict=True):
            if number not in self.done:  # a row that is done runs along until half of them are
                self._add_token(number, int(token), entropy, step)

    def _add_token(self, number: int, token: int, entropy: float, step: int) -> None:
        """Add a request's next token; it may be done with it."""
        request, generated = self.requests[number], self.generated[number]
        ended = token in self.ends
        if not ended:
            generated.append(token)
            self.entropies[number].append(entropy)
            if len(generated) < request.limit and not request.stop(generated):
                return
        self.done[number] = GenerationOutput(tuple(generated), tuple(self.entropies[number]), ended)
        run = request.view.extended(generated[:step])  # the last token was generated, but not run
        row = self.live.index(number)  # rows of other requests may have been dropped since the step
        self.prefixes.add(request.question, run, self.cache.layers, row, self.width - len(request.view))

    def _drop_done(self) -> None:
        """Drop rows that are done, once they are half of the batch: dropping copies the keys of the others."""
        going = [row for row, number in enumerate(self.live) if number not in self.done]
        if not going or 2 * len(going) > len(self.live):
            return
        rows = torch.tensor(going).to(self.token.device, non_blocking=True)
        for layer in self.cache.layers:
            assert isinstance(layer, PreallocatedLayer)
            layer.select_rows(rows)
        for name in ("visible", "position", "next_position", "token"):
            setattr(self, name, getattr(self, name)[rows])
        self.live = [self.live[row] for row in going]

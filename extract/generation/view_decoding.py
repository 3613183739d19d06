"""Greedy decoding of a batch of prompt views after their cached keys, with the entropy of every step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from extract.attention import PreallocatedLayer
from extract.generation.prefix_cache import PrefixCache
from extract.generation.prompt_view import PromptView

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
        self.visible = self._visible().to(model.device)
        self.position, self.next_position, self.token = (
            torch.tensor(values, device=model.device)
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
        step = 0
        while len(self.done) < len(self.requests):
            self._step(step)
            step += 1
        return [self.done[number] for number in range(len(self.requests))]

    def _step(self, step: int) -> None:
        logits = self._logits(step)
        self.token = logits.argmax(dim=-1)
        # entr(p) = -p ln p, 0 at p = 0.
        entropies = torch.special.entr(torch.softmax(logits, dim=-1)).sum(dim=-1)
        # One copy to the host for the whole batch: `stop` reads the tokens there.
        for row, (token, entropy) in enumerate(zip(self.token.tolist(), entropies.tolist(), strict=True)):
            if self.live[row] not in self.done:  # a row that is done runs along until half of them are
                self._add_token(row, token, entropy, step)
        self.position = self.next_position + step  # after the first step, which ran the view's last token
        self._drop_done()

    def _logits(self, step: int) -> Tensor:
        """Logits after the latest token of each row, in float32."""
        logits: Tensor = self.model(
            input_ids=self.token[:, None],
            attention_mask=self.visible[:, : self.width + step],
            position_ids=self.position[:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1].float()

    def _add_token(self, row: int, token: int, entropy: float, step: int) -> None:
        """Add a row's next token; its request may be done with it."""
        number = self.live[row]
        request, generated = self.requests[number], self.generated[number]
        ended = token in self.ends
        if not ended:
            generated.append(token)
            self.entropies[number].append(entropy)
            if len(generated) < request.limit and not request.stop(generated):
                return
        self.done[number] = GenerationOutput(tuple(generated), tuple(self.entropies[number]), ended)
        run = request.view.extended(generated[:step])  # the last token was generated, but not run
        self.prefixes.add(request.question, run, self.cache.layers, row, self.width - len(request.view))

    def _drop_done(self) -> None:
        """Drop rows that are done, once they are half of the batch: dropping copies the keys of the others."""
        going = [row for row, number in enumerate(self.live) if number not in self.done]
        if not going or 2 * len(going) > len(self.live):
            return
        rows = torch.tensor(going, device=self.token.device)
        for layer in self.cache.layers:
            assert isinstance(layer, PreallocatedLayer)
            layer.select_rows(rows)
        for name in ("visible", "position", "next_position", "token"):
            setattr(self, name, getattr(self, name)[rows])
        self.live = [self.live[row] for row in going]

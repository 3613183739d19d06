"""Ablated runs: log-probabilities of an answer when sources are removed from its prompt (ContextCite's ablations)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention import PreallocatedLayer, preallocated_cache
from extract.generation import rotary_factors, rotary_groups
from extract.llm import LLM, is_windowed
from extract.tasks import Sample
from extract.utils import frozen_inference
from probe.attribution.masks import sample_masks
from probe.attribution.prompts import SourcedPrompt

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

MOST_ROWS, MOST_TOKENS, MOST_LOGITS = 16, 8192, 2**27
"""Most runs, tokens and logits of one forward; a run that exceeds them by itself is run alone."""
ON_ACCELERATOR = 4
"""By which these are multiplied where the model is not on the CPU."""
SEED = 1
"""Of the masks that methods sample."""


class AblatedRuns:
    """Forwards of one answer with some of its sources removed. Each set of sources runs once, whoever asks for it.

    A source's text is removed from the prompt and positions close up. The prompt's tokens before its first source are
    the same in all runs: their keys are computed once, unless a layer has a sliding window.

    Args:
        llm: The frozen model.
        prompt: Question and documents.
        tokens: The answer's.
        held_out: Masks that evaluation uses, which `sampled` leaves out.

    """

    def __init__(
        self,
        llm: LLM,
        prompt: SourcedPrompt,
        tokens: Int[Tensor, "token"],
        held_out: Bool[Tensor, "run source"] | None = None,
    ) -> None:
        self._llm, self.prompt, self._answer, self._held_out = llm, prompt, tokens.tolist(), held_out
        first = min((start for spans in prompt.spans for start, _ in spans), default=0)
        self._prefix = 0 if is_windowed(llm.model) else first
        self._found = dict[tuple[bool, ...], Tensor]()
        self._costs = dict[tuple[bool, ...], int]()
        self._caches: dict[bool, DynamicCache] = {}

    @property
    def sources(self) -> int:
        """Number of sources."""
        return len(self.prompt.sources)

    def sampled(self, count: int) -> Bool[Tensor, "run source"]:
        """Masks of random ablations for methods, the first ones of one sequence; fewer where there are not as many."""
        return sample_masks(count, self.sources, SEED, self._held_out)

    def log_probs(self, kept: Bool[Tensor, "run source"]) -> Float[Tensor, "run token"]:
        """Log-probabilities of the answer's tokens, on the host.

        Args:
            kept: Which sources stay in each run.

        """
        masks = [tuple(mask) for mask in kept.tolist()]
        if missing := [mask for mask in dict.fromkeys(masks) if mask not in self._found]:
            self._run(missing)
        return torch.stack([self._found[mask] for mask in masks]) if masks else torch.zeros(0, len(self._answer))

    def cost(self, kept: Bool[Tensor, "run source"]) -> int:
        """Tokens that these runs put through the model, shared keys not counted."""
        self.log_probs(kept)
        return sum(self._costs[tuple(mask)] for mask in kept.tolist())

    @frozen_inference()
    def _run(self, masks: list[tuple[bool, ...]]) -> None:
        prompts = [self.prompt.ablated(mask) for mask in masks]
        steps = len(self._answer)
        samples = [Sample(number, "", ids, [], steps, "", "") for number, ids in enumerate(prompts)]
        for group in rotary_groups(self._llm.model, samples):
            # Runs of similar length together, so that there is little padding.
            order = sorted(group.indices, key=lambda number: len(prompts[number]))
            with rotary_factors(self._llm.model, group):
                for batch in self._batches(order, [len(ids) + steps for ids in prompts]):
                    found = self._forward([prompts[number] for number in batch], group.long)
                    for number, row in zip(batch, found, strict=True):
                        self._found[masks[number]] = row
        for mask, ids in zip(masks, prompts, strict=True):
            self._costs[mask] = len(ids) + steps - self._shared(ids)

    def _shared(self, ids: list[int]) -> int:
        """Tokens of a prompt whose keys are those of the whole one."""
        return common_prefix(self.prompt.ids[: self._prefix], ids[:-1])

    def _batches(self, order: list[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Runs that go together; `order` is ascending by length."""
        batch, logits = list[int](), len(self._answer) * int(self._llm.model.config.vocab_size)
        times = 1 if self._llm.model.device.type == "cpu" else ON_ACCELERATOR
        for number in order:
            rows = (len(batch) + 1) / times
            if batch and (rows > MOST_ROWS or rows * lengths[number] > MOST_TOKENS or rows * logits > MOST_LOGITS):
                yield batch
                batch = []
            batch.append(number)
        yield batch

    def _forward(self, prompts: list[list[int]], long: bool) -> Float[Tensor, "run token"]:
        """One forward of right-padded prompts with the answer, after the keys that all of them share."""
        model, answer = self._llm.model, self._answer
        shared = min(map(self._shared, prompts))
        rows = [[*ids, *answer[:-1]][shared:] for ids in prompts]
        tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, ids in enumerate(rows):
            tokens[row, : len(ids)] = torch.tensor(ids)
        cache = self._shared_cache(shared, len(rows), tokens.shape[1], long) if shared else None
        # Token t is predicted from the position before it. Padding comes last, so no query sees it.
        ends = torch.tensor([len(ids) for ids in rows])[:, None]
        positions = ends - len(answer) + torch.arange(len(answer))
        with reading(model, positions.to(model.device)):
            logits: Tensor = model(
                input_ids=tokens.to(model.device),
                position_ids=torch.arange(shared, shared + tokens.shape[1], device=model.device)[None],
                past_key_values=cache,
                use_cache=cache is not None,
            ).logits
        chosen = torch.tensor(answer, device=logits.device).expand(len(rows), -1)
        found: Tensor = logits.float().log_softmax(dim=-1).gather(2, chosen[..., None])[..., 0]
        return found.cpu()

    def _shared_cache(self, shared: int, rows: int, new: int, long: bool) -> "DynamicCache":
        """A cache of some rows that hold the prompt's first tokens; `long`: which rotary factors rotate their keys."""
        model = self._llm.model
        if long not in self._caches:
            self._caches[long] = preallocated_cache(model, self._prefix)
            first = torch.tensor([self.prompt.ids[: self._prefix]], device=model.device)
            model(input_ids=first, past_key_values=self._caches[long], use_cache=True, logits_to_keep=1)
        cache = preallocated_cache(model, shared + new)
        for layer, source in zip(cache.layers, self._caches[long].layers, strict=True):
            assert isinstance(layer, PreallocatedLayer)
            assert isinstance(source, PreallocatedLayer)
            keys, values = source.between(0, 0, shared)
            layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
        return cache


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of first tokens that two sequences share.

    >>> common_prefix([1, 2, 3], [1, 2, 4, 5])
    2

    """
    differ = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


@contextmanager
def reading(model: "PreTrainedModel", positions: Int[Tensor, "row token"]) -> Iterator[None]:
    """The LM head reads only some positions of each row, so that no other logits are computed."""
    rows = torch.arange(len(positions), device=positions.device)[:, None]

    def gather(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][rows, positions], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        hook.remove()

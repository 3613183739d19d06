"""Run prompts whose context is partly hidden: greedy generation of many at once, and a look at the whole context."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention import Recorder, ReservedLayer, instrumented, recording, reserved_cache
from extract.generation.longrope import check_short
from extract.generation.prompt_view import Mask, View
from extract.llm import LLM, is_windowed

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(frozen=True)
class Job:
    """A generation to run.

    Attributes:
        question: What it belongs to: keys are shared among the jobs of a question.
        view: What has been said: prompt and answer so far.
        limit: Most tokens to generate, 1 or more.
        stop: Whether the generated tokens are enough; asked after each. Equal jobs are run once.

    """

    question: int
    view: View
    limit: int
    stop: Callable[[Sequence[int]], bool]


@dataclass(frozen=True)
class Generated:
    """What a job gave.

    Attributes:
        tokens: Greedy tokens, without an end token.
        entropies: Entropy of the distribution that each was taken from, in nats.
        ended: Whether an end token followed.

    """

    tokens: tuple[int, ...]
    entropies: tuple[float, ...]
    ended: bool


@dataclass(frozen=True)
class Seen:
    """The last query with everything visible.

    Attributes:
        hidden: Final hidden state.
        rows: Attention of each head, layer-major, on every token so far.

    """

    hidden: Float[Tensor, "hidden"]
    rows: Float[Tensor, "head key"]


@dataclass
class _Kept:
    """Keys of a view that was run, on the model's device."""

    view: View
    layers: list[ReservedLayer]


class MaskedLLM:
    """The frozen model over views of prompts.

    What it has run it keeps, question by question: a view goes on from the longest beginning that it shares with a kept
    one. Keys of a token depend only on the tokens before it, their positions and their mask, so nothing changes but
    rounding.

    Args:
        llm: The frozen model.
        chunk: Tokens of a prompt that run together, so that no mask is of size n × n.
        keep: Views kept for each question, the latest.

    Raises:
        UserError: when it runs: a prompt reaches beyond the border of the model's LongRoPE.

    """

    def __init__(self, llm: LLM, chunk: int = 512, keep: int = 16) -> None:
        self.windowed = is_windowed(llm.model)
        self.llm, self.chunk, self.keep = llm, chunk, keep
        self._kept: dict[int, list[_Kept]] = {}
        self._ends = frozenset(llm.end_tokens)

    def exact(self, mask: Mask) -> Mask:
        """The mask that gives what `mask` promises: windows count keys, so `packed` would widen them."""
        return "in_place" if mask == "packed" and self.windowed else mask

    @torch.inference_mode()
    def generate(self, jobs: Sequence[Job]) -> list[Generated]:
        """Run all jobs, each distinct one once, those of similar length in one batch."""
        done: dict[Job, Generated] = {}
        for alike in _by_length(list(dict.fromkeys(jobs))):
            done.update(zip(alike, self._generate(alike), strict=True))
        return [done[job] for job in jobs]

    def _generate(self, jobs: list[Job]) -> list[Generated]:
        width = max(len(job.view) for job in jobs)
        capacity = width + max(job.limit for job in jobs)
        check_short(self.llm.model, max(job.view.end + job.limit for job in jobs), "a prompt")
        cache = reserved_cache(self.llm.model, capacity)
        for row, job in enumerate(jobs):
            single = self._prefill(job.question, job.view, len(job.view) - 1)
            for layer, own in zip(cache.layers, single.layers, strict=True):
                assert isinstance(layer, ReservedLayer)
                assert isinstance(own, ReservedLayer)
                layer.place(row, width - len(job.view), own, len(jobs))
        return _Decoding(self, jobs, cache, width, capacity).run()

    def _prefill(self, question: int, view: View, capacity: int) -> "DynamicCache":
        """Keys of all tokens of a view but the last, in a cache of its own; they are kept, too."""
        model, kept = self.llm.model, self._kept.get(question, [])
        cache = reserved_cache(model, capacity)
        shared, best = max(
            ((min(one.view.shared(view), len(view) - 1), n) for n, one in enumerate(kept)), default=(0, 0)
        )
        if shared:
            for layer, former in zip(cache.layers, kept[best].layers, strict=True):
                assert isinstance(layer, ReservedLayer)
                assert former.keys is not None
                assert former.values is not None
                layer.update(former.keys[:, :, :shared], former.values[:, :, :shared])
            kept.append(kept.pop(best))
        tokens, positions, visible = self._tensors(view)
        mask = None if bool(visible.all()) else visible[None]
        for start in range(shared, len(view) - 1, self.chunk):
            end = min(start + self.chunk, len(view) - 1)
            model(
                input_ids=tokens[None, start:end],
                position_ids=positions[None, start:end],
                attention_mask=None if mask is None else mask[:, :end].long(),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return cache

    def _tensors(self, view: View) -> tuple[Int[Tensor, "token"], Int[Tensor, "token"], Bool[Tensor, "token"]]:
        device = self.llm.model.device
        tokens, positions = (torch.tensor(x, device=device) for x in (view.tokens, view.positions))
        return tokens, positions, torch.tensor(view.visible, device=device)

    def store(self, question: int, view: View, layers: "Sequence[object]", row: int, start: int) -> None:
        """Keep the keys of a view that was run in a row of a batch, from column `start` on.

        A layer with a window has forgotten some of them, so that nothing is kept.
        """
        if self.windowed:
            return
        kept, parts = self._kept.setdefault(question, []), []
        for layer in layers:
            assert isinstance(layer, ReservedLayer)
            assert layer.keys is not None
            assert layer.values is not None
            own, place = ReservedLayer(len(view)), (slice(row, row + 1), slice(None), slice(start, start + len(view)))
            own.update(layer.keys[place], layer.values[place])
            parts.append(own)
        kept.append(_Kept(view, parts))
        del kept[: -self.keep]

    @torch.inference_mode()
    def look(self, question: int, view: View) -> Seen:
        """Hidden state and attention of a view's last token, everything visible."""
        model, recorder = self.llm.model, Recorder(self.llm.model)
        check_short(model, view.end, "a prompt")
        cache = self._prefill(question, view, len(view))
        tokens, positions, _ = self._tensors(view)
        recorder.keeping = True
        with instrumented(model), recording(recorder, model):
            model(
                input_ids=tokens[None, -1:],
                position_ids=positions[None, -1:],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self.store(question, view, cache.layers, 0, 0)
        return Seen(recorder.hidden[0].float(), recorder.rows[0].flatten(0, 1))


def _by_length(jobs: list[Job]) -> list[list[Job]]:
    """Jobs in groups whose longest view is at most twice the shortest: every row attends over the longest's width."""
    groups: list[list[Job]] = []
    for job in sorted(jobs, key=lambda job: len(job.view)):
        if groups and len(job.view) <= 2 * len(groups[-1][0].view):
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups


class _Decoding:
    """Greedy decoding of a batch of views behind their cached keys; a row leaves when its job is done."""

    def __init__(self, masked: MaskedLLM, jobs: list[Job], cache: "DynamicCache", width: int, capacity: int) -> None:
        self.masked, self.jobs, self.cache, self.width = masked, jobs, cache, width
        device = masked.llm.model.device
        keys = torch.ones(len(jobs), capacity, dtype=torch.long)
        for row, job in enumerate(jobs):
            first = width - len(job.view)
            keys[row, :first] = 0
            keys[row, first:width] = torch.tensor(job.view.visible).long()
        self.keys = keys.to(device)
        self.position = torch.tensor([job.view.positions[-1] for job in jobs], device=device)
        self.following = torch.tensor([job.view.end for job in jobs], device=device)
        self.token = torch.tensor([job.view.tokens[-1] for job in jobs], device=device)
        self.live = list(range(len(jobs)))
        self.said: list[list[int]] = [[] for _ in jobs]
        self.entropies: list[list[float]] = [[] for _ in jobs]
        self.done: dict[int, Generated] = {}

    def run(self) -> list[Generated]:
        """All jobs, in their order."""
        step = 0
        while len(self.done) < len(self.jobs):
            self._step(step)
            step += 1
        return [self.done[number] for number in range(len(self.jobs))]

    def _step(self, step: int) -> None:
        logits: Tensor = (
            self.masked.llm.model(
                input_ids=self.token[:, None],
                attention_mask=self.keys[:, : self.width + step],
                position_ids=self.position[:, None],
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .float()
        )
        self.token = logits.argmax(dim=-1)
        entropies = torch.special.entr(torch.softmax(logits, dim=-1)).sum(dim=-1)
        for row, (token, entropy) in enumerate(zip(self.token.tolist(), entropies.tolist(), strict=True)):
            if self.live[row] not in self.done:
                self._take(row, token, entropy, step)
        self.position = self.following + step
        self._leave()

    def _take(self, row: int, token: int, entropy: float, step: int) -> None:
        """A row's next token; the job may be done with it."""
        number = self.live[row]
        job, said = self.jobs[number], self.said[number]
        ended = token in self.masked._ends
        if not ended:
            said.append(token)
            self.entropies[number].append(entropy)
            if len(said) < job.limit and not job.stop(said):
                return
        self.done[number] = Generated(tuple(said), tuple(self.entropies[number]), ended)
        run = job.view.then(said[:step])  # the last token was generated, not run
        self.masked.store(job.question, run, self.cache.layers, row, self.width - len(job.view))

    def _leave(self) -> None:
        """Drop rows that are done, once they are half of the batch: dropping copies the others' keys."""
        going = [row for row, number in enumerate(self.live) if number not in self.done]
        if not going or 2 * len(going) > len(self.live):
            return
        rows = torch.tensor(going, device=self.token.device)
        for layer in self.cache.layers:
            assert isinstance(layer, ReservedLayer)
            layer.take(rows)
        for name in ("keys", "position", "following", "token"):
            setattr(self, name, getattr(self, name)[rows])
        self.live = [self.live[row] for row in going]

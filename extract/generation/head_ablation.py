"""Ablation decoding: each step looks at all heads, then chooses its token with some of them ablated (claim 2)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention import Branching, Recorder, branched_cache, instrumented, recording
from extract.generation.ablated_output import Ablated
from extract.generation.batching import Batch, pad, warn_of_windows
from extract.generation.dynamic_heads import DynamicHeads
from extract.generation.longrope import by_regime
from extract.generation.prefill import advance, prefill
from extract.llm import LLM
from extract.tasks import Sample

if TYPE_CHECKING:
    from transformers import DynamicCache


@runtime_checkable
class Selection(Protocol):
    """Chooses the heads to ablate at a step."""

    def ablated(self, dynamic: Bool[Tensor, "row head"], order: Float[Tensor, "row head"]) -> Bool[Tensor, "row head"]:
        """The heads to ablate, given a clean pass's dynamic heads and what orders them (higher first)."""


@torch.inference_mode()
def generate_ablated(
    llm: LLM,
    samples: Sequence[Sample],
    conditions: Sequence[Selection],
    heads: DynamicHeads,
    operator: Literal["zero", "mean"] = "zero",
    keep: Literal["clean", "masked"] = "clean",
) -> Ablated:
    """Greedy generation of every sample under every condition, in one batch behind one prefill of each prompt.

    A step is two forwards of the same query. The clean one shows the dynamic heads, and its token is thrown away; in
    the second the condition's heads are ablated at that query alone, and its token is the one generated.

    Args:
        llm: The frozen model.
        samples: Prompts; each is generated to an end token or to its own budget.
        conditions: What to ablate.
        heads: What makes a head dynamic.
        operator: A ablated head's output before the output projection is `zero`, or its `mean` over the positions
            of the sample's own prompt, the last one left out (the clean prefill).
        keep: Whose keys and values of the query stay in the cache for later steps.

    """
    model, count = llm.model, len(conditions)
    warn_of_windows(model, samples)

    def run(some: list[Sample]) -> Ablated:
        prompts = pad(some, llm.tokenizer.pad_token_id or 0, device=model.device)
        recorder = Recorder(model)
        if operator == "mean":
            cache, means = _averaging_prefill(llm, prompts, recorder)
        else:
            cache, means = prefill(model, prompts, prompts.width - 1, chunk=llm.prefill_chunk), None
        with instrumented(model), recording(recorder, model):
            return _TwoPass(llm, prompts.branches(count), cache, means, conditions, heads, keep, recorder).run()

    return by_regime(model, samples, run)


def _averaging_prefill(
    llm: LLM, prompts: Batch, recorder: Recorder
) -> tuple["DynamicCache", dict[int, Float[Tensor, "prompt head vsize"]]]:
    """Prefill, and the mean output of every head over each prompt, by layer."""
    means: list[dict[int, Tensor]] = []

    def after() -> None:
        means.append(recorder.take_averages())

    recorder.averaging = True
    with instrumented(llm.model), recording(recorder, llm.model):
        cache = prefill(llm.model, prompts, prompts.width - 1, after, llm.prefill_chunk)
    recorder.averaging = False
    return cache, {layer: torch.cat([mean[layer] for mean in means]) for layer in range(recorder.layers)}


class _TwoPass:
    """The loop over steps. Rows are samples × conditions, a sample's conditions side by side.

    Rows of a sample that have the same answer so far are one until it parts: `leader` names the first of them, and a
    forward runs leaders alone. Under `keep: masked` the heads ablated so far must be the same, too.
    """

    def __init__(
        self,
        llm: LLM,
        batch: Batch,
        prompts: "DynamicCache",
        means: dict[int, Tensor] | None,
        conditions: Sequence[Selection],
        heads: DynamicHeads,
        keep: Literal["clean", "masked"],
        recorder: Recorder,
    ) -> None:
        self.llm, self.batch, self.conditions, self.heads = llm, batch, conditions, heads
        self.keep, self.recorder, self.means = keep, recorder, means
        rows, capacity = batch.tokens.shape
        self.cache, self.layers = branched_cache(prompts, rows, capacity - batch.width)
        recorder.prompt = [layer.prompt_keys() for layer in self.layers]
        self.sample = torch.arange(rows, device=batch.tokens.device) // len(conditions)
        self.leader = self.sample * len(conditions)

    def run(self) -> Ablated:
        """All steps, until every row has ended."""
        tokens, width = self.batch.tokens, self.batch.width
        ends = torch.tensor(self.llm.end_tokens, device=tokens.device)
        lengths = self.batch.budgets.clone()
        steps: list[tuple[Tensor, ...]] = []
        for step in range(int(lengths.max())):
            generated, *heads = self._step(width + step, lengths > step)
            steps.append((generated, *heads))
            if width + step < tokens.shape[1]:
                tokens[:, width + step] = generated
            ended = torch.isin(generated, ends) & (lengths > step)
            lengths = torch.where(ended, step + 1, lengths)
            if bool((lengths <= step + 1).all()):
                break
        return self._collect(lengths, steps)

    def _step(self, keys: int, going: Bool[Tensor, "batch"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Generated token; dynamic, ablated and afterwards scoring heads. Rows that have ended get anything."""
        leaders, of_leader = self.leader[going].unique(return_inverse=True)
        which = torch.zeros_like(self.leader).masked_scatter_(going, of_leader)
        generated, before, order = (found[which] for found in self._forward(keys, leaders))
        ablate = self._choose(before, order) & going[:, None]
        some = ablate.any(dim=1)  # a row that ablates nothing has nothing to run twice for
        after, chosen = before, torch.zeros_like(self.leader)
        if bool(some.any()):
            pairs = torch.cat([self.leader[some, None], ablate[some].long()], dim=1)
            different, place = pairs.unique(dim=0, return_inverse=True)
            chosen.masked_scatter_(some, place)
            token, scoring, _ = self._forward(keys, different[:, 0], ablate=different[:, 1:].bool())
            generated = torch.where(some, token[chosen], generated)
            after = torch.where(some[:, None], scoring[chosen], before)
        self._part(going, generated, torch.where(some, chosen, -1))
        return generated, before, ablate, after

    def _forward(
        self, keys: int, rows: Int[Tensor, "some"], ablate: Bool[Tensor, "some head"] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Token of some rows, scoring heads, and their order; a forward that ablates heads keeps no keys."""
        part, recorder = self.batch.take(rows), self.recorder
        recorder.columns = self.heads.columns(part, keys)
        recorder.branching = Branching.of(self.sample[rows])
        recorder.ablate = None if ablate is None else ablate.view(-1, recorder.layers, recorder.heads)
        if self.means is not None:
            sample = self.sample[rows]
            recorder.fill = {layer: mean[sample.to(mean.device)] for layer, mean in self.means.items()}
        for layer in self.layers:
            layer.rows, layer.again = rows, ablate is not None
        generated = advance(self.llm.model, part, self.cache, keys).argmax(dim=-1)
        return generated, *self.heads.scored(recorder, part, keys, generated)

    def _choose(self, dynamic: Tensor, order: Tensor) -> Bool[Tensor, "batch head"]:
        """Each condition chooses for its own rows."""
        count = len(self.conditions)
        chosen = [
            condition.ablated(dynamic[place::count], order[place::count])
            for place, condition in enumerate(self.conditions)
        ]
        return torch.stack(chosen, dim=1).flatten(0, 1)

    def _part(
        self, going: Bool[Tensor, "batch"], generated: Int[Tensor, "batch"], masked: Int[Tensor, "batch"]
    ) -> None:
        """Rows whose answers part from now on get leaders and keys of their own.

        `masked` is a row's place in the forward that ablated heads, -1 without one.
        """
        state = masked if self.keep == "masked" else torch.zeros_like(masked)
        rows = going.nonzero()[:, 0]
        parts, part = torch.stack([self.leader, generated, state], dim=1)[rows].unique(dim=0, return_inverse=True)
        first = torch.full((len(parts),), len(going), device=rows.device).scatter_reduce_(0, part, rows, "amin")
        former = parts[:, 0]
        self.leader = self.leader.masked_scatter(going, first[part])
        new = first != former
        for layer in self.layers:
            layer.copy(first[new], former[new])
            if self.keep == "masked":
                layer.keep_last(first[parts[:, 2] >= 0], parts[parts[:, 2] >= 0, 2])

    def _collect(self, lengths: Tensor, steps: list[tuple[Tensor, ...]]) -> Ablated:
        """By sample and condition, on the host."""
        columns = [torch.stack(column, dim=1).cpu() for column in zip(*steps, strict=True)]
        grouped = [column.unflatten(0, (-1, len(self.conditions))) for column in (lengths.cpu(), *columns)]
        return Ablated(*grouped)

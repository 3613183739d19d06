"""Ablation decoding (claim 2): each step finds the dynamic heads, then chooses its token with some heads ablated."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention import (
    Branching,
    RecordingPlan,
    SharedPrefix,
    branched_cache,
    instrumented,
    preallocated_cache,
    realigned_cache,
    recording,
)
from extract.generation.ablated_output import AblatedGenerations
from extract.generation.batching import Batch, check_forcing, pad, realigned, warn_of_windows
from extract.generation.dynamic_heads import DynamicHeads, Selection, StepHeads
from extract.generation.greedy import without_end
from extract.generation.longrope import RotaryGroup, run_by_group
from extract.generation.prefill import decode_step, prefill_each, prefill_prompts
from extract.llm import LLM
from extract.prompts import ForcedOpening
from extract.tasks import Sample
from extract.utils import frozen_inference

if TYPE_CHECKING:
    from transformers import DynamicCache


Means = dict[int, Float[Tensor, "prompt head vsize"]]
"""By layer, the mean output of every head over each prompt."""


@frozen_inference()
def generate_ablated(
    llm: LLM,
    samples: Sequence[Sample],
    conditions: Sequence[Selection],
    heads: DynamicHeads,
    operator: Literal["zero", "mean"] = "zero",
    keep: Literal["clean", "masked"] = "clean",
    opening: ForcedOpening | None = None,
) -> AblatedGenerations:
    """Greedy generation of every sample under every condition, in one batch after one prefill of each prompt.

    A step has two forwards of the same query. The clean pass finds the dynamic heads, and its token is discarded. In
    the second pass the condition's heads are ablated at this query alone, and its token is the one generated.

    Args:
        llm: The frozen model.
        samples: Prompts; each is generated to an end token or to its own budget.
        conditions: Which heads to ablate.
        heads: What makes a head dynamic.
        operator: What an ablated head's output before the output projection becomes: `zero`, or its `mean` over the
            positions of the sample's own prompt without the last one (a clean prefill).
        keep: The pass whose keys and values of the query stay in the cache for later steps: `clean` or `masked`
            (with heads ablated).
        opening: Continues generations that ended without an answer. The opening runs as a prompt does, without
            ablation; what follows it is generated as the answer was, under the same condition.

    Raises:
        UserError: the model's attention cannot be recorded, or its cache cannot be shared by conditions, or openings
            are forced on a model with sliding windows.

    """
    if opening is not None:
        check_forcing(llm.model)
    warn_of_windows(llm.model, samples)

    def run(group: RotaryGroup) -> AblatedGenerations:
        prompts = pad(group.samples, llm.tokenizer.pad_token_id or 0, device=llm.model.device)
        cache, means = _prefill(llm, prompts, operator)
        with instrumented(llm.model):
            numbers = [sample.index for sample in group.samples]
            return _TwoPassDecoding(llm, prompts, numbers, cache, means, conditions, heads, keep).run(opening)

    return run_by_group(llm.model, samples, run)


def _prefill(llm: LLM, prompts: Batch, operator: Literal["zero", "mean"]) -> tuple["DynamicCache", Means | None]:
    """KV cache of the prompts, and the heads' mean outputs if the operator needs them."""
    if operator == "zero":
        return prefill_prompts(llm.model, prompts, prompts.width - 1, llm.prefill_chunk), None
    cache, means = preallocated_cache(llm.model, prompts.width - 1), list[Means]()
    with instrumented(llm.model), recording(llm.model, RecordingPlan(mean_outputs=True)) as recorder:
        # A prefix taken over from another prompt would be missing in this prompt's mean.
        for _ in prefill_each(llm.model, prompts, cache, llm.prefill_chunk, reuse=False):
            means.append(recorder.take_mean_outputs())
    return cache, {layer: torch.cat([mean[layer] for mean in means]) for layer in means[0]}


class _TwoPassDecoding:
    """The loop over steps. Rows are samples × conditions, a sample's conditions side by side.

    Rows of a sample with the same answer so far share one computation until their answers diverge: `leader` is the
    first of them, and a forward runs leaders alone. With `keep: masked` the heads ablated so far must be the same, too,
    for they change the cached keys. Which rows run is kept on the host: a step waits for the heads to ablate and for
    the generated tokens, and for nothing else.
    """

    def __init__(
        self,
        llm: LLM,
        prompts: Batch,
        numbers: list[int],
        prompt_cache: "DynamicCache",
        means: Means | None,
        conditions: Sequence[Selection],
        heads: DynamicHeads,
        keep: Literal["clean", "masked"],
    ) -> None:
        self.llm, self.conditions, self.heads, self.keep, self.means = llm, conditions, heads, keep, means
        self.batch = prompts.branches(len(conditions))
        self.numbers = torch.tensor(numbers)
        rows, capacity = self.batch.tokens.shape
        self.cache, self.layers = branched_cache(prompt_cache, rows, capacity - prompts.width)
        self.prompt_keys = [layer.prompt_keys() for layer in self.layers]
        # At first all rows of a sample have the same, empty, answer: the sample's first row leads them.
        self.sample = torch.arange(rows) // len(conditions)
        self.leader = self.sample * len(conditions)
        self._set_conditions(torch.arange(rows) % len(conditions))

    def _set_conditions(self, numbers: Int[Tensor, "batch"]) -> None:
        """Set the number of the condition of each row."""
        self.condition = numbers
        rows = [(numbers == number).nonzero()[:, 0] for number in range(len(self.conditions))]
        self.rows = [(self._to_device(some), self.numbers[self.sample[some]]) for some in rows]

    def _to_device(self, values: Tensor) -> Tensor:
        """A tensor of the host on the device of the batch; the host does not wait for it."""
        return values.to(self.batch.tokens.device, non_blocking=True)

    def run(self, opening: ForcedOpening | None) -> AblatedGenerations:
        """All steps, until every row has ended; then the forced openings."""
        lengths, steps = self._decode()
        continuations = {} if opening is None else self._force(lengths.tolist(), opening)
        return self._collect(lengths, steps, continuations)

    def _force(self, lengths: list[int], opening: ForcedOpening) -> dict[int, list[int]]:
        """Tokens after the forced openings, by row."""
        ends, width, forced = self.llm.end_tokens, self.batch.width, dict[int, list[int]]()
        for row, answer in enumerate(self.batch.tokens[:, width:].tolist()):
            said = without_end(answer[: lengths[row]], ends)
            if added := opening.tokens(said):
                forced[row] = [*said, *added]
        if not forced:
            return {}
        continued = self._continued(forced, [lengths[row] for row in forced], opening.limit)
        counts, _ = continued._decode()
        tokens = continued.batch.tokens[:, continued.batch.width :].tolist()
        generated = zip(forced, tokens, counts.tolist(), strict=True)
        return {row: without_end(answer[:count], ends) for row, answer, count in generated}

    def _continued(self, answers: dict[int, list[int]], held: list[int], budget: int) -> "_TwoPassDecoding":
        """The decoding that continues some rows, each after its answer, of which `held` keys are cached."""
        other, rows = copy.copy(self), torch.tensor(list(answers))
        other.batch = realigned(self.batch, list(answers), list(answers.values()), budget)
        prompt = self.batch.width - 1
        own = other.batch.width - prompt
        # A row's own keys begin with its last prompt token, at the column where that one is now.
        starts = [own - 1 - len(answer) for answer in answers.values()]
        missing = [start + count for start, count in zip(starts, held, strict=True)]
        sources = self.leader[rows]
        other.cache, other.layers = realigned_cache(self.layers, sources, held, starts, own + budget, min(missing))
        other.sample = self.sample[rows]
        # Rows that had one leader have the same answer and keys: the first of those that go on leads them.
        _, group = sources.unique(return_inverse=True)
        place = torch.arange(len(rows))
        other.leader = torch.full_like(place, len(rows)).scatter_reduce_(0, group, place, "amin")[group]
        other._set_conditions(self.condition[rows])
        other._run_openings(torch.tensor(missing), own)
        return other

    def _run_openings(self, missing: Int[Tensor, "batch"], own: int) -> None:
        """Run what is not cached of the answers and openings but the last token, column by column, without ablation."""
        leaders, prompt = self.leader.unique(), self.batch.width - own
        for column in range(int(missing.min()), own - 1):
            self._forward(prompt + column + 1, leaders[missing[leaders] <= column])

    def _decode(self) -> tuple[Int[Tensor, "batch"], list[tuple[Tensor, ...]]]:
        """All steps, until every row has ended: the number of each row's steps, and the steps."""
        tokens, width = self.batch.tokens, self.batch.width
        ends, lengths = torch.tensor(self.llm.end_tokens), self.batch.budgets.cpu()
        steps: list[tuple[Tensor, ...]] = []
        for step in range(int(lengths.max())):
            said, generated, *heads = self._step(step, lengths > step)
            steps.append((generated, *heads))
            if width + step < tokens.shape[1]:
                tokens[:, width + step] = generated
            # The step that generates an end token counts.
            ended = torch.isin(said, ends) & (lengths > step)
            lengths = torch.where(ended, step + 1, lengths)
            if bool((lengths <= step + 1).all()):
                break
        return lengths, steps

    def _step(self, step: int, going: Bool[Tensor, "batch"]) -> tuple[Tensor, ...]:
        """Both passes: generated token on the host and there; dynamic and ablated heads, dynamic ones after ablation.

        `going` are the rows that have not ended; values of the others are meaningless.
        """
        keys = self.batch.width + step
        # Clean pass: one row for each distinct answer so far; every row reads its leader's result.
        leaders, leader_row = self.leader[going].unique(return_inverse=True)
        row = self._to_device(torch.zeros_like(self.leader).masked_scatter_(going, leader_row))
        generated, before, order = (result[row] for result in self._forward(keys, leaders))

        ablate = self._choose(before, order, step) & self._to_device(going)[:, None]
        chosen = ablate.cpu()
        some = chosen.any(dim=1)  # where nothing is ablated the second pass would repeat the first
        after, ablated_row = before, torch.zeros_like(self.leader)
        if bool(some.any()):
            # Second pass: one row for each distinct pair of answer and ablated heads.
            pairs = torch.cat([self.leader[some, None], chosen[some].long()], dim=1)
            distinct, pair_row = pairs.unique(dim=0, return_inverse=True)
            ablated_row.masked_scatter_(some, pair_row)
            token, dynamic, _ = self._forward(keys, distinct[:, 0], ablate=distinct[:, 1:].bool())
            there, places = self._to_device(some), self._to_device(ablated_row)
            generated = torch.where(there, token[places], generated)
            after = torch.where(there[:, None], dynamic[places], before)
        said = generated.cpu()
        self._diverge(going, said, torch.where(some, ablated_row, -1))
        return said, generated, before, ablate, after

    def _forward(
        self, keys: int, rows: Int[Tensor, "some"], ablate: Bool[Tensor, "some head"] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Token of some rows, dynamic heads, and their order; a forward that ablates heads changes no cached key."""
        part, layers = self.batch.take(rows), self.llm.model.config.num_hidden_layers
        branching, there = Branching.of(self.sample[rows]), self._to_device(rows)
        columns, ablated = self.heads.columns(part, keys), None if ablate is None else self._to_device(ablate)
        plan = RecordingPlan(
            columns=columns,
            ablate=None if ablated is None else ablated.unflatten(1, (layers, -1)),
            replacement=None if ablate is None else self._replacement(rows),
            prefix=SharedPrefix(self.prompt_keys, replace(branching, slots=self._to_device(branching.slots))),
        )
        # A rerun of the query sees the cached keys of earlier steps, and its own in place of the clean pass's.
        for layer in self.layers:
            layer.next_forward(there, rerun=ablate is not None)
        with self.heads.recording(self.llm.model, plan, part) as (recorder, contributions):
            generated = decode_step(self.llm.model, part, self.cache, keys).argmax(dim=-1)
        return generated, *self.heads.scored(recorder, columns, part, generated, contributions, ablated)

    def _replacement(self, rows: Int[Tensor, "some"]) -> Means | None:
        """Outputs of ablated heads: the means over each row's own prompt, on the device of each layer."""
        if self.means is None:
            return None
        sample = self.sample[rows]
        return {layer: mean[sample.to(mean.device, non_blocking=True)] for layer, mean in self.means.items()}

    def _choose(self, dynamic: Tensor, order: Tensor, step: int) -> Bool[Tensor, "batch head"]:
        """The heads to ablate; each condition chooses for its own rows."""
        chosen = torch.zeros_like(dynamic)
        for condition, (rows, samples) in zip(self.conditions, self.rows, strict=True):
            if len(rows):
                chosen[rows] = condition.ablated(StepHeads(dynamic[rows], order[rows], samples, step))
        return chosen

    def _diverge(
        self, going: Bool[Tensor, "batch"], generated: Int[Tensor, "batch"], ablated_row: Int[Tensor, "batch"]
    ) -> None:
        """Give rows whose answers diverge at this step leaders and cached keys of their own.

        `ablated_row` is a row's index in the second pass, -1 without one.
        """
        # Rows stay together if they had the same leader and now have the same token (and the same cached keys).
        state = ablated_row if self.keep == "masked" else torch.zeros_like(ablated_row)
        rows = going.nonzero()[:, 0]
        groups, group = torch.stack([self.leader, generated, state], dim=1)[rows].unique(dim=0, return_inverse=True)
        # The first row of a group leads it, so a leader's own group keeps its leader and needs no copy.
        first = torch.full((len(groups),), len(going)).scatter_reduce_(0, group, rows, "amin")
        former = groups[:, 0]
        self.leader = self.leader.masked_scatter(going, first[group])
        new, rerun = first != former, groups[:, 2] >= 0
        copied, replaced = (first[new], former[new]), (first[rerun], groups[rerun, 2])
        for layer in self.layers:
            layer.copy_answers(*map(self._to_device, copied))
            if self.keep == "masked":  # later steps see the query as the ablated pass computed it
                layer.replace_last(*map(self._to_device, replaced))

    def _collect(
        self, lengths: Tensor, steps: list[tuple[Tensor, ...]], continuations: dict[int, list[int]]
    ) -> AblatedGenerations:
        """By sample and condition, on the host."""
        count = len(self.conditions)
        forced = [continuations.get(row) for row in range(len(lengths))]
        columns = [torch.stack(column, dim=1).cpu() for column in zip(*steps, strict=True)]
        grouped: list[Any] = [column.unflatten(0, (-1, len(self.conditions))) for column in (lengths, *columns)]
        by_sample = [forced[first : first + count] for first in range(0, len(forced), count)]
        return AblatedGenerations(*[*grouped, by_sample])

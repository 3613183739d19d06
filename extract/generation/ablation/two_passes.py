"""A batch of ablation decoding: its steps, each a clean pass and one with heads ablated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from extract.attention import Branching, RecordingPlan, SharedPrefix, branched_cache
from extract.generation.ablation.answers import Answer
from extract.generation.ablation.prompt_places import Means, PromptPlaces
from extract.generation.batching import pad_answered
from extract.generation.dynamic_heads import DynamicHeads, Selection, StepHeads
from extract.generation.prefill import decode_step
from extract.llm import LLM


@dataclass(frozen=True)
class AblationRules:
    """What is ablated, and with what effect (see `generate_ablated`)."""

    conditions: Sequence[Selection]
    heads: DynamicHeads
    operator: Literal["zero", "mean"]
    keep: Literal["clean", "masked"]


class TwoPassDecoding:
    """Decodes some answers together until enough prompts have ended; a row is an answer.

    Rows of a sample with the same answer so far share one computation until their answers diverge: `leader` is the
    first of them, and a forward runs leaders alone. With `keep: masked` the heads ablated so far must be the same, too,
    for they change the cached keys. Which rows run is kept on the host: a step waits for the heads to ablate and for
    the generated tokens, and for nothing else.

    Args:
        llm: The frozen model, instrumented.
        rules: What is ablated.
        places: The prompts.
        answers: The answers, by place.
        former: The batch in which the answers that have a `row` were decoded; its keys are taken from it.

    """

    def __init__(
        self,
        llm: LLM,
        rules: AblationRules,
        places: PromptPlaces,
        answers: Sequence[Answer],
        former: "TwoPassDecoding | None",
    ) -> None:
        self.llm, self.rules, self.places, self.answers = llm, rules, places, answers
        tokens, left = [answer.tokens for answer in answers], [answer.left for answer in answers]
        samples, fill = [answer.sample for answer in answers], llm.tokenizer.pad_token_id or 0
        self.batch = pad_answered(samples, tokens, left, places.width, fill, llm.model.device)
        self.place = torch.tensor([answer.place for answer in answers])
        self.rows = [self._rows_of(number) for number in range(len(rules.conditions))]
        # A row's own keys begin with its last prompt token.
        self.starts = self.batch.width - places.width - torch.tensor([len(one) for one in tokens])
        # Rows that had one leader have the same answer and keys; and so have the rows of a prompt that comes in.
        leaders = [] if former is None else former.leader.tolist()
        sources = [-1 - one.place if one.row is None else leaders[one.row] for one in answers]
        first: dict[int, int] = {}
        self.leader: Tensor = torch.tensor([first.setdefault(source, row) for row, source in enumerate(sources)])
        capacity = self.batch.tokens.shape[1] - places.width
        self.cache, self.layers = branched_cache(places.cache, len(answers), capacity)
        self.prompt_keys = [layer.prompt_keys() for layer in self.layers]
        if former is not None:
            self._take_over(former, torch.tensor(sources).clamp(min=0))

    def _rows_of(self, condition: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of the answers under a condition the rows, there, and on the host samples and numbers of the next step."""
        some = [(row, one) for row, one in enumerate(self.answers) if one.condition == condition]
        columns = [row for row, _ in some], [one.sample.index for _, one in some], [one.step for _, one in some]
        rows, *here = (torch.tensor(column, dtype=torch.long) for column in columns)
        return self._to_device(rows), here[0], here[1]

    def _to_device(self, values: Tensor) -> Tensor:
        """A tensor of the host on the device of the batch; the host does not wait for it."""
        return values.to(self.batch.tokens.device, non_blocking=True)

    def _take_over(self, former: "TwoPassDecoding", sources: Int[Tensor, "batch"]) -> None:
        """Take the keys of the former batch, and run what they lack of answers and openings.

        The last tokens are left to the first step; the others are run column by column, without ablation.
        """
        missing = self.starts + torch.tensor([answer.held for answer in self.answers])
        begin, end = int(missing.min()), self.batch.width - self.places.width
        former.cache.layers.clear()
        for layer in self.layers:  # the former ones are freed one by one, so that memory does not double
            layer.take_over(former.layers.pop(0), sources, self.starts - former.starts[sources], begin)
        leaders = self.leader.unique()
        for column in range(begin, end):
            self._forward(self.places.width + column, leaders[missing[leaders] <= column])

    def decode(self, enough: int) -> None:
        """Steps until so many prompts have ended under all conditions; they are added to the answers."""
        tokens, width = self.batch.tokens, self.batch.width
        ends, lengths = torch.tensor(self.llm.end_tokens), self.batch.budgets.cpu()
        steps, prompts = list[tuple[Tensor, ...]](), len(self.place.unique())
        for step in range(int(lengths.max())):
            said, generated, *heads = self._step(step, lengths > step)
            steps.append((generated, *heads))
            if width + step < tokens.shape[1]:
                tokens[:, width + step] = generated
            # The step that generates an end token counts.
            ended = torch.isin(said, ends) & (lengths > step)
            lengths = torch.where(ended, step + 1, lengths)
            if prompts - len(self.place[lengths > step + 1].unique()) >= enough:
                break
        columns = [torch.stack(column, dim=1).cpu() for column in zip(*steps, strict=True)]
        for row, (answer, length) in enumerate(zip(self.answers, lengths.tolist(), strict=True)):
            answer.row = row
            answer.add(tuple(column[row, :length].clone() for column in columns), ended=length <= len(steps))

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
        part, layers, heads = self.batch.take(rows), self.llm.model.config.num_hidden_layers, self.rules.heads
        branching, there = Branching.of(self.place[rows]), self._to_device(rows)
        columns, ablated = heads.columns(part, keys), None if ablate is None else self._to_device(ablate)
        plan = RecordingPlan(
            columns=columns,
            ablate=None if ablated is None else ablated.unflatten(1, (layers, -1)),
            replacement=None if ablate is None else self._replacement(rows),
            prefix=SharedPrefix(self.prompt_keys, replace(branching, slots=self._to_device(branching.slots))),
        )
        # A rerun of the query sees the cached keys of earlier steps, and its own in place of the clean pass's.
        for layer in self.layers:
            layer.next_forward(there, rerun=ablate is not None)
        with heads.recording(self.llm.model, plan, part) as (recorder, contributions):
            generated = decode_step(self.llm.model, part, self.cache, keys).argmax(dim=-1)
        return generated, *heads.scored(recorder, columns, part, generated, contributions, ablated)

    def _replacement(self, rows: Int[Tensor, "some"]) -> Means | None:
        """Outputs of ablated heads: the means over each row's own prompt, on the device of each layer."""
        if self.places.means is None:
            return None
        place = self.place[rows]
        return {layer: mean[place.to(mean.device, non_blocking=True)] for layer, mean in self.places.means.items()}

    def _choose(self, dynamic: Tensor, order: Tensor, step: int) -> Bool[Tensor, "batch head"]:
        """The heads to ablate; each condition chooses for its own rows."""
        chosen = torch.zeros_like(dynamic)
        for condition, (rows, samples, steps) in zip(self.rules.conditions, self.rows, strict=True):
            if len(rows):
                chosen[rows] = condition.ablated(StepHeads(dynamic[rows], order[rows], samples, steps + step))
        return chosen

    def _diverge(
        self, going: Bool[Tensor, "batch"], generated: Int[Tensor, "batch"], ablated_row: Int[Tensor, "batch"]
    ) -> None:
        """Give rows whose answers diverge at this step leaders and cached keys of their own.

        `ablated_row` is a row's index in the second pass, -1 without one.
        """
        # Rows stay together if they had the same leader and now have the same token (and the same cached keys).
        state = ablated_row if self.rules.keep == "masked" else torch.zeros_like(ablated_row)
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
            if self.rules.keep == "masked" and bool(rerun.any()):
                # Later steps see the query as the ablated pass computed it.
                layer.replace_last(*map(self._to_device, replaced))

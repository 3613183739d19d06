"""Ablation decoding: each step looks at all heads, then chooses its token with some of them silenced (claim 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.batch import Batch, advance, pad, prefill
from extract.cache import branched_cache
from extract.dynamic import DynamicHeads
from extract.instrument import Recorder, instrumented, recording
from extract.llm import LLM
from extract.task import Sample

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


class Selection(Protocol):
    """Chooses the heads to silence at a step."""

    def silenced(self, dynamic: Bool[Tensor, "row head"], order: Float[Tensor, "row head"]) -> Bool[Tensor, "row head"]:
        """The heads to silence, given a clean pass's dynamic heads and what orders them (higher first)."""


@dataclass(frozen=True)
class Ablated:
    """Generations of every sample under every condition.

    Attributes:
        lengths: Steps; the one that generates an end token is one.
        tokens: Generated tokens.
        before: Dynamic heads of the clean pass of each step.
        silenced: Heads silenced in the second pass.
        after: Heads that score in the second pass, by its own token.

    """

    lengths: Int[Tensor, "sample condition"]
    tokens: Int[Tensor, "sample condition step"]
    before: Bool[Tensor, "sample condition step head"]
    silenced: Bool[Tensor, "sample condition step head"]
    after: Bool[Tensor, "sample condition step head"]


@torch.inference_mode()
def ablate(
    llm: LLM,
    samples: Sequence[Sample],
    conditions: Sequence[Selection],
    heads: DynamicHeads,
    operator: Literal["zero", "mean"] = "zero",
    keep: Literal["clean", "masked"] = "clean",
) -> Ablated:
    """Greedy generation of every sample under every condition, in one batch behind one prefill of each prompt.

    A step is two forwards of the same query. The clean one shows the dynamic heads, and its token is thrown away; in
    the second the condition's heads are silenced at that query alone, and its token is the one generated.

    Args:
        llm: The frozen model.
        samples: Prompts; each is generated to an end token or to its own budget.
        conditions: What to silence.
        heads: What makes a head dynamic.
        operator: A silenced head's output before the output projection is `zero`, or its `mean` over the positions
            of the sample's own prompt, the last one left out (the clean prefill).
        keep: Whose keys and values of the query stay in the cache for later steps.

    """
    model, count = llm.model, len(conditions)
    prompts = pad(samples, llm.tokenizer.pad_token_id or 0, device=model.device)
    recorder = Recorder(model)
    if operator == "mean":
        cache, means = _averaging_prefill(model, prompts, recorder)
        recorder.fill = {layer: mean.repeat_interleave(count, dim=0) for layer, mean in means.items()}
    else:
        cache = prefill(model, prompts, prompts.width - 1)
    with instrumented(model), recording(recorder, model):
        return _TwoPass(llm, prompts.branches(count), cache, conditions, heads, keep, recorder).run()


def _averaging_prefill(
    model: "PreTrainedModel", prompts: Batch, recorder: Recorder
) -> tuple["DynamicCache", dict[int, Float[Tensor, "prompt head vsize"]]]:
    """Prefill, and the mean output of every head over each prompt, by layer."""
    means: list[dict[int, Tensor]] = []
    recorder.averaging = True
    with instrumented(model), recording(recorder, model):
        cache = prefill(model, prompts, prompts.width - 1, after=lambda: means.append(dict(recorder.averages)))
    recorder.averaging = False
    return cache, {layer: torch.cat([mean[layer] for mean in means]) for layer in range(recorder.layers)}


class _TwoPass:
    """The loop over steps. Rows are samples × conditions, a sample's conditions side by side."""

    def __init__(
        self,
        llm: LLM,
        batch: Batch,
        prompts: "DynamicCache",
        conditions: Sequence[Selection],
        heads: DynamicHeads,
        keep: Literal["clean", "masked"],
        recorder: Recorder,
    ) -> None:
        self.llm, self.batch, self.conditions, self.heads = llm, batch, conditions, heads
        self.keep, self.recorder = keep, recorder
        self.cache, self.layers = branched_cache(prompts, batch.tokens.shape[1] - batch.width)
        recorder.prompt = [layer.prompt_keys() for layer in self.layers]

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
        """Generated token; dynamic, silenced and afterwards scoring heads."""
        self.recorder.columns = self.heads.columns(self.batch, keys)
        generated, before, order = self._forward(keys)
        silence = self._choose(before, order) & going[:, None]
        after = before
        if bool(silence.any()):
            masked, scoring = self._silenced(keys, silence)
            some = silence.any(dim=1)  # a row that silences nothing has nothing to run twice for
            generated, after = torch.where(some, masked, generated), torch.where(some[:, None], scoring, before)
        return generated, before, silence, after

    def _forward(self, keys: int) -> tuple[Tensor, Tensor, Tensor]:
        generated = advance(self.llm.model, self.batch, self.cache, keys).argmax(dim=-1)
        return generated, *self.heads.scored(self.recorder, self.batch, keys, generated)

    def _choose(self, dynamic: Tensor, order: Tensor) -> Bool[Tensor, "batch head"]:
        """Each condition chooses for its own rows."""
        count = len(self.conditions)
        chosen = [
            condition.silenced(dynamic[place::count], order[place::count])
            for place, condition in enumerate(self.conditions)
        ]
        return torch.stack(chosen, dim=1).flatten(0, 1)

    def _silenced(self, keys: int, silence: Bool[Tensor, "batch head"]) -> tuple[Tensor, Tensor]:
        """The same query again, in place of the first: token, and the heads that score then."""
        clean = [layer.last() for layer in self.layers] if self.keep == "clean" else []
        self.cache.crop(-1)
        self.recorder.silence = silence.view(len(silence), self.recorder.layers, self.recorder.heads)
        generated, after, _ = self._forward(keys)
        self.recorder.silence = None
        for layer, states in zip(self.layers, clean, strict=False):
            layer.put_last(*states)
        return generated, after

    def _collect(self, lengths: Tensor, steps: list[tuple[Tensor, ...]]) -> Ablated:
        """By sample and condition, on the host."""
        columns = [torch.stack(column, dim=1).cpu() for column in zip(*steps, strict=True)]
        grouped = [column.unflatten(0, (-1, len(self.conditions))) for column in (lengths.cpu(), *columns)]
        return Ablated(*grouped)

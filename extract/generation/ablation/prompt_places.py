"""The prompts that ablation decodes together: their keys, and the mean outputs of heads over each of them."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from extract.attention import RecordingPlan, instrumented, preallocated_cache, recording
from extract.generation.prefill import layer_pairs, prefill_beside
from extract.llm import LLM
from extract.tasks import Sample

Means = dict[int, Float[Tensor, "prompt head vsize"]]
"""By layer, the mean output of every head over each prompt."""


class PromptPlaces:
    """Prefilled prompts, each at a place, all ending at the same column. A place can be given to another prompt.

    Args:
        llm: The frozen model.
        count: Number of places.
        longest: Tokens of the longest prompt to come.
        operator: `mean` for the mean outputs of heads, too.

    Attributes:
        cache: Keys and values of every prompt but its last token, which the first step runs.
        means: By layer, the mean output of every head over each of these; None unless the operator needs it.
        samples: The prompt at each place.
        width: Columns of a prompt, its padding and its last token included.

    """

    def __init__(self, llm: LLM, count: int, longest: int, operator: Literal["zero", "mean"]) -> None:
        self._llm, self._count = llm, count
        self.means: Means | None = None if operator == "zero" else {}
        self._empty(longest)

    def _empty(self, longest: int) -> None:
        self.samples: list[Sample] = []
        self.width = max(longest, 2)
        self.cache = preallocated_cache(self._llm.model, self.width - 1)

    def admit(self, place: int, sample: Sample) -> None:
        """Prefill a prompt at a place: the next one, or that of a prompt that has ended."""
        if self._count == 1:
            self._empty(len(sample.ids))  # a cache of its own: a single prompt needs no copy, nor padding
        # A prompt of one token has no keys, but the first keys make the buffers: its own, in a column of padding.
        ids = sample.ids[:-1] or sample.ids
        if self.means is None:
            held = [(other.ids[:-1], self.width - len(other.ids)) for other in self.samples]
            single = prefill_beside(self._llm, ids, self.cache, held)
        else:
            # A prefix taken over from another prompt would be missing in this prompt's mean.
            plan = RecordingPlan(mean_outputs=True)
            with instrumented(self._llm.model), recording(self._llm.model, plan) as recorder:
                single = prefill_beside(self._llm, ids, self.cache, [])
            self._set_means(place, recorder.take_mean_outputs())
        if self._count == 1:
            self.cache = single
        else:
            for layer, source in layer_pairs(self.cache, single):
                layer.write_row(place, self.width - 1 - len(ids), source, self._count)
        self.samples[place : place + 1] = [sample]

    def _set_means(self, place: int, means: Means) -> None:
        assert self.means is not None
        for layer, mean in means.items():
            of_all = self.means.setdefault(layer, mean.new_zeros(self._count, *mean.shape[1:]))
            of_all[place] = mean[0]

    def close_gap(self, place: int) -> None:
        """Remove a place, which the prompt at the last one takes."""
        for (layer,) in layer_pairs(self.cache):
            layer.close_gap(place)
        for mean in (self.means or {}).values():
            mean[place] = mean[len(self.samples) - 1]
        self.samples[place] = self.samples[-1]
        self.samples.pop()

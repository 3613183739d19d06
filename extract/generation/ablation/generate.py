"""Ablation decoding (claim 2): each step finds the dynamic heads, then chooses its token with some heads ablated."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Literal

from extract.attention import instrumented
from extract.generation.ablation.answers import Answer, collected
from extract.generation.ablation.output import AblatedGenerations
from extract.generation.ablation.prompt_places import PromptPlaces
from extract.generation.ablation.two_passes import AblationRules, TwoPassDecoding
from extract.generation.batching import check_forcing, warn_of_windows
from extract.generation.dynamic_heads import DynamicHeads, Selection
from extract.generation.longrope import RotaryGroup, run_by_group
from extract.llm import LLM, is_windowed
from extract.prompts import ForcedOpening
from extract.tasks import Sample
from extract.utils import frozen_inference


@frozen_inference()
def generate_ablated(
    llm: LLM,
    samples: Sequence[Sample],
    conditions: Sequence[Selection],
    heads: DynamicHeads,
    operator: Literal["zero", "mean"] = "zero",
    keep: Literal["clean", "masked"] = "clean",
    opening: ForcedOpening | None = None,
    slots: int | None = None,
) -> AblatedGenerations:
    """Greedy generation of every sample under every condition, after one prefill of each prompt.

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
        slots: Most prompts that are decoded together, each under all conditions; None: all. Results do not depend on
            it, up to rounding. When a prompt has ended under all conditions, the next one takes its place.

    Raises:
        UserError: the model's attention cannot be recorded, or its cache cannot be shared by conditions, or openings
            are forced on a model with sliding windows.

    """
    if opening is not None:
        check_forcing(llm.model)
    warn_of_windows(llm.model, samples)
    rules = AblationRules(conditions, heads, operator, keep)

    def run(group: RotaryGroup) -> AblatedGenerations:
        return _ContinuousAblation(llm, group.samples, rules, opening, slots or len(group.samples)).run()

    return run_by_group(llm.model, samples, run)


class _ContinuousAblation:
    """The loop over batches. Between two of them prompts that have ended leave, and the next ones take their places."""

    def __init__(
        self, llm: LLM, samples: Sequence[Sample], rules: AblationRules, opening: ForcedOpening | None, slots: int
    ) -> None:
        self.llm, self.rules, self.opening = llm, rules, opening
        self.slots = min(slots, len(samples))
        self.places = PromptPlaces(llm, self.slots, max(len(sample.ids) for sample in samples), rules.operator)
        self.waiting = deque([Answer(one, number) for number in range(len(rules.conditions))] for one in samples)
        self.all, self.going = [answer for answers in self.waiting for answer in answers], list[Answer]()
        self.windowed = is_windowed(llm.model)

    def run(self) -> AblatedGenerations:
        """All samples' answers."""
        batch = None
        while self.waiting or self.going:
            self._fill_places()
            with instrumented(self.llm.model):
                batch = TwoPassDecoding(self.llm, self.rules, self.places, self.going, batch)
                batch.decode(self._enough())
            self._end()
            batch = batch if self.going else None  # without one its keys are not needed
        return collected(self.all, len(self.rules.conditions))

    def _enough(self) -> int:
        """How many of the prompts must end before the others go on in another batch."""
        prompts = len(self.places.samples)
        # Answers cannot be moved within a sliding window, which counts columns: there all places are filled together.
        if self.windowed:
            return prompts
        # A place is filled again at once; the keys of prompts that leave none waiting are let go by halves.
        return 1 if self.waiting else math.ceil(prompts / 2)

    def _fill_places(self) -> None:
        """Let waiting prompts take the free places; without any the batch shrinks."""
        taken = {answer.place for answer in self.going}
        for place in [place for place in range(self.slots) if place not in taken][: len(self.waiting)]:
            answers = self.waiting.popleft()
            self.places.admit(place, answers[0].sample)
            for answer in answers:
                answer.place = place
            self.going += answers
            taken.add(place)
        for gap in reversed([place for place in range(len(self.places.samples)) if place not in taken]):
            last = len(self.places.samples) - 1
            self.places.close_gap(gap)
            for answer in self.going:
                answer.place = gap if answer.place == last else answer.place
        self.slots = len(self.places.samples)
        self.going.sort(key=lambda answer: answer.place)

    def _end(self) -> None:
        """Force the openings that answers need, and let go those that have ended."""
        for answer in self.going:
            if answer.ended:
                answer.force(self.opening, self.llm.end_tokens)
        self.going = [answer for answer in self.going if not answer.ended]

"""Needle in a haystack with UUID needles (A.1)."""

import functools
import hashlib
import random
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from extract.errors import UserError
from extract.prompts import Span, TokenizedText, find_token_span, render_chat_prompt, tokens_between
from extract.store import content_id
from extract.tasks.answer_format import GoldContinuation, led_to
from extract.tasks.answer_metrics import rouge_l
from extract.tasks.base import Sample, Task
from extract.tasks.grid_axis import Axis, axis_extent, axis_value, grid_values, other_cells
from extract.tasks.haystack import Haystack, load_haystack
from extract.tasks.insertion import Insertion, Placement
from extract.utils import AnyInt, SampleCount, Seed

if TYPE_CHECKING:
    from extract.llm import LLM


MOST_SAMPLES = 10**6
"""Most samples of a grid: each is made and measured before the first is run."""


@dataclass(frozen=True)
class NeedleTexts:
    """Texts of a needle prompt, by default the paper's (A.1).

    Attributes:
        needle: The sentence to hide, with `{uuid}` once.
        question: The question that it answers.
        system: System message.
        template: User message, with `{context}` and `{question}` once each.

    """

    needle: str = "The magic word is {uuid}."
    question: str = "What is the magic word?"
    system: str = "You are a helpful AI bot that answers questions for a user. Keep your response short and direct."
    template: str = (
        "Context:\n{context}\n\nQuestion:\n{question}\n\nInstruction:\n"
        "Don't give information outside the document or repeat your findings."
    )

    def check(self) -> None:
        """Check the placeholders.

        Raises:
            UserError: naming the text that lacks one.

        """
        for where, text, placeholder in (
            ("needle", self.needle, "{uuid}"),
            ("template", self.template, "{context}"),
            ("template", self.template, "{question}"),
        ):
            if text.count(placeholder) != 1:
                raise UserError(f"task texts.{where}: it must hold {placeholder} once")


@dataclass(frozen=True)
class SampledNeedle:
    """The random part of one sample.

    Attributes:
        needle: The sentence to hide.
        key: The UUID in it.
        length: Tokens of the haystack.
        depth: Wanted depth of the needle, in percent of the haystack.
        start: First sentence of the haystack, as a share of its text's sentences in [0, 1).

    """

    needle: str
    key: str
    length: int
    depth: float
    start: float


class NIAH(Task):
    """Needle in a haystack: hide `The magic word is {UUID}.` in a text and ask for it.

    Args:
        lengths: Haystack lengths in tokens, the needle and the template not counted: a list or `{start, stop,
            step}` (both ends included) is a grid axis, `{low, high}` a uniformly random length for each sample.
        depths: Wanted needle depths in percent of the haystack, in the same three forms. The field `depth` of a sample
            is the real one.
        runs: Samples per cell of the grid; without a grid axis, the number of samples.
        seed: With a sample's number it determines the sample.
        haystack: See `extract.tasks.load_haystack`.
        haystack_start: `random` begins at a random sentence, `zero` at the text's first.
        texts: Texts of the prompt.
        evidence: The tokens that count as needle: the whole `needle` sentence, or the `uuid` alone.
        margin: Tokens an answer may have beyond the needle's own: an opening phrase, a UUID cut into other tokens.
        reference: ROUGE-L compares the answer with the `needle` sentence or with the `uuid`.
        placement: `before` steps back from the wanted depth to the end of a sentence (A.1), `nearest` takes the end
            nearest to it. A haystack with few sentence ends is divided after words, one with few spaces after tokens.

    """

    def __init__(
        self,
        lengths: Axis,
        depths: Axis | None = None,
        runs: SampleCount = 1,
        seed: Seed = 0,
        haystack: str = "pydoc",
        haystack_start: Literal["random", "zero"] = "random",
        texts: NeedleTexts = NeedleTexts(),
        evidence: Literal["needle", "uuid"] = "needle",
        margin: AnyInt = 16,
        reference: Literal["needle", "uuid"] = "needle",
        placement: Placement = "before",
    ) -> None:
        self.lengths, self.depths = lengths, {"low": 0.0, "high": 100.0} if depths is None else depths
        self.runs, self.seed = runs, seed
        self.haystack, self.haystack_start, self.texts = haystack, haystack_start, texts
        self.evidence, self.margin, self.reference = evidence, margin, reference
        self.placement: Placement = placement

    def __len__(self) -> int:
        """Cells of the grid × runs."""
        return len(self._grid) * self.runs

    def describe(self) -> dict[str, Any]:
        """Settings, with the haystack identified by its hash."""
        names = "lengths depths runs seed haystack haystack_start evidence margin reference placement".split()
        settings = {name: getattr(self, name) for name in names}
        return {"class": "NIAH", **settings, **asdict(self.texts), "haystack_sha256": self._text_hash}

    @functools.cached_property
    def _grid(self) -> list[tuple[float | None, float | None]]:
        lengths, depths = grid_values(self.lengths, "lengths"), grid_values(self.depths, "depths")
        if (samples := len(lengths) * len(depths) * self.runs) > MOST_SAMPLES:
            raise UserError(f"task: lengths × depths × runs are {samples:,} samples; at most {MOST_SAMPLES:,}")
        return [(length, depth) for length in lengths for depth in depths]

    @functools.cached_property
    def _text(self) -> str:
        return load_haystack(self.haystack)

    @functools.cached_property
    def _text_hash(self) -> str:
        return hashlib.sha256(self._text.encode()).hexdigest()

    def prepare(self, llm: "LLM") -> None:
        """Check the settings, tokenize the haystack once."""
        self._check()
        if (longest := max(axis_extent(self.lengths, "lengths"))) > llm.context_length:
            raise UserError(
                f"task lengths: {longest:g} tokens are beyond the {llm.context_length} of {llm.name}; lower `lengths`"
            )
        self._llm, self._haystack = llm, Haystack(self._text, llm.tokenizer)
        for index in self.order()[-64:]:  # the longest; UUIDs differ by a few tokens
            self.sample(index)
        self._warn_of_other_cells()

    def _check(self) -> None:
        self.texts.check()
        if not len(self):
            raise UserError("task: no sample; give `lengths`, `depths` and `runs` at least one value each")
        if min(axis_extent(self.lengths, "lengths")) < 1:
            raise UserError("task lengths: a haystack needs at least 1 token")
        if not all(0 <= depth <= 100 for depth in axis_extent(self.depths, "depths")):
            raise UserError("task depths: percent, so from 0 to 100")

    @functools.cache  # noqa: B019 (a task lives as long as its run)
    def _sampled(self, index: int) -> SampledNeedle:
        # A string seeds through SHA-512: the same on every platform and Python.
        rng = random.Random(f"{self.seed}:{index}")
        key = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        # All three are taken, whatever is used: a change of one setting leaves the other values as they are.
        u_length, u_depth, u_start = rng.random(), rng.random(), rng.random()
        length, depth = self._grid[index // self.runs]
        return SampledNeedle(
            needle=self.texts.needle.replace("{uuid}", key),
            key=key,
            length=round(axis_value(self.lengths, length, u_length)),
            depth=axis_value(self.depths, depth, u_depth),
            start=u_start if self.haystack_start == "random" else 0.0,
        )

    def _inserted(self, hidden: SampledNeedle) -> Insertion:
        excerpt = self._haystack.excerpt(hidden.start, hidden.length)
        return self._haystack.insert(excerpt, hidden.needle, hidden.depth, self.placement)

    def _warn_of_other_cells(self) -> None:
        """Warn once, with counts, where needles of a grid of depths are nearer to another depth of it."""
        from lightning.pytorch.utilities import rank_zero_warn  # here, so that tasks import without lightning

        if None in (depths := grid_values(self.depths, "depths")) or len(depths) < 2:
            return
        hidden = [self._sampled(index) for index in self.order()]
        pairs = [(needle.depth, self._inserted(needle).depth) for needle in hidden]
        if moved := other_cells([depth for depth in depths if depth is not None], pairs):
            shown = ", ".join(f"{count} × {wanted:g} % in {real:g} %" for (wanted, real), count in moved.most_common(8))
            rank_zero_warn(
                f"task depths: {moved.total()} of {len(pairs)} needles are in another cell of the grid than requested, "
                f"since no sentence ends nearer ({shown}); `depth` is the real one, and longer haystacks come closer"
            )

    def order(self) -> list[int]:
        """By length, so that a batch holds little padding; then by number."""
        return sorted(range(len(self)), key=lambda index: (self._sampled(index).length, index))

    def sample(self, index: int) -> Sample:
        """The sample of that number.

        Raises:
            UserError: the needle's tokens are not exactly known, or the prompt is beyond the model's context.

        """
        hidden = self._sampled(index)
        context = self._inserted(hidden)
        prompt = self._prompt(context)
        needle = find_token_span(prompt, hidden.needle)
        if (budget := needle[1] - needle[0] + self.margin) < 1:
            raise UserError(f"task margin: {self.margin} leaves no token for the answer; raise it")
        if (tokens := len(prompt.ids) + budget) > self._llm.context_length:
            raise UserError(
                f"task lengths: a haystack of {hidden.length} tokens makes {tokens} tokens with needle, template and "
                f"answer, beyond the {self._llm.context_length} of {self._llm.name}; lower `lengths`"
            )
        return Sample(
            index=index,
            id=content_id(hidden.key),  # the same needle in another haystack is the same sample
            ids=prompt.ids,
            evidence=[needle if self.evidence == "needle" else find_token_span(prompt, hidden.key)],
            budget=budget,
            question=self.texts.question,
            gold=hidden.key,
            fields={
                "length": hidden.length,
                "depth": context.depth,
                "requested_depth": float(hidden.depth),
                "boundary": self._haystack.boundary,
                "needle": hidden.needle,
            },
        )

    def _prompt(self, context: Insertion) -> TokenizedText:
        user = self.texts.template.replace("{context}", context.text).replace("{question}", self.texts.question)
        return render_chat_prompt(self._llm.tokenizer, self.texts.system, user, self._llm.chat)

    def context_span(self, index: int) -> Span:
        """Token span of haystack and needle."""
        context = self._inserted(self._sampled(index))
        prompt = self._prompt(context)
        start = prompt.text.index(context.text)
        return tokens_between(prompt, start, start + len(context.text))

    def gold_continuation(self, sample: Sample, answer: str, solved: bool) -> GoldContinuation:
        """The UUID after the needle's text before it."""
        del solved
        before = self.texts.needle.partition("{uuid}")[0]
        return led_to(answer, before.rstrip(), before[len(before.rstrip()) :] + sample.gold)

    def grade(self, sample: Sample, answer: str) -> dict[str, float]:
        """Accuracy (1 if the whole UUID occurs in the answer, else 0) and ROUGE-L (F-measure)."""
        wanted = str(sample.fields["needle"]) if self.reference == "needle" else sample.gold
        return {"accuracy": float(sample.gold in answer), "rouge_l": rouge_l(wanted, answer)}

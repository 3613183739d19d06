"""Needle in a haystack with UUID needles (A.1)."""

import bisect
import functools
import hashlib
import random
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from extract.errors import UserError
from extract.prompts import SENTENCE_END, encode, locate, render
from extract.tasks.answer_metrics import rouge_l
from extract.tasks.base import Sample, Task
from extract.tasks.haystack import load_haystack

if TYPE_CHECKING:
    from extract.llm import LLM


SYSTEM = "You are a helpful AI bot that answers questions for a user. Keep your response short and direct."
TEMPLATE = (
    "Context:\n{context}\n\nQuestion:\n{question}\n\nInstruction:\n"
    "Don't give information outside the document or repeat your findings."
)
Axis = list[float] | dict[str, float]
"""Values of a grid, `{start, stop, step}` of one, or `{low, high}` to draw a value for each sample."""


@dataclass(frozen=True)
class Draw:
    """The random part of one sample."""

    needle: str
    key: str
    length: int
    depth: float
    start: float


class NIAH(Task):
    """Hide `The magic word is {UUID}.` in a text and ask for it.

    Args:
        lengths: Haystack lengths in tokens, the needle and the template not counted: a list or `{start, stop,
            step}` (both ends included) is a grid axis, `{low, high}` draws one length for each sample.
        depths: Needle depths in percent of the haystack, in the same three forms.
        runs: Samples per cell of the grid; without a grid axis, the number of samples.
        seed: With a sample's number it fixes the sample.
        haystack: See `extract.tasks.haystack.load_haystack`.
        haystack_start: `random` begins at a random sentence, `zero` at the text's first.
        needle, question, system, template: Texts; `{uuid}` stands in the needle, `{context}` and `{question}` in
            the template.
        evidence: The tokens that count as needle: the whole `needle` sentence, or the `uuid` alone.
        margin: Tokens an answer may have beyond the needle's own: an opening phrase, a UUID cut into other tokens.
        reference: ROUGE-L compares the answer with the `needle` sentence or with the `uuid`.

    """

    def __init__(
        self,
        lengths: Axis,
        depths: Axis | None = None,
        runs: int = 1,
        seed: int = 0,
        haystack: str = "pydoc",
        haystack_start: Literal["random", "zero"] = "random",
        needle: str = "The magic word is {uuid}.",
        question: str = "What is the magic word?",
        system: str = SYSTEM,
        template: str = TEMPLATE,
        evidence: Literal["needle", "uuid"] = "needle",
        margin: int = 16,
        reference: Literal["needle", "uuid"] = "needle",
    ) -> None:
        self.lengths, self.depths = lengths, {"low": 0.0, "high": 100.0} if depths is None else depths
        self.runs, self.seed = runs, seed
        self.haystack, self.haystack_start = haystack, haystack_start
        self.needle, self.question, self.system, self.template = needle, question, system, template
        self.evidence, self.margin, self.reference = evidence, margin, reference

    def __len__(self) -> int:
        """Cells of the grid × runs."""
        return len(self._grid) * self.runs

    def describe(self) -> dict[str, Any]:
        """Settings, with the haystack named by its hash."""
        names = [
            "runs",
            "seed",
            "haystack",
            "haystack_start",
            "needle",
            "question",
            "system",
            "template",
            "evidence",
            "margin",
            "reference",
        ]
        axes = {"lengths": self.lengths, "depths": self.depths}
        digest = hashlib.sha256(self._text.encode()).hexdigest()
        return {"class": "NIAH", **axes, **{n: getattr(self, n) for n in names}, "haystack_sha256": digest}

    @functools.cached_property
    def _grid(self) -> list[tuple[float | None, float | None]]:
        depths = _grid_values(self.depths, "depths")
        return [(length, depth) for length in _grid_values(self.lengths, "lengths") for depth in depths]

    @functools.cached_property
    def _text(self) -> str:
        return load_haystack(self.haystack)

    @functools.cached_property
    def _pool(self) -> str:
        """What a sample's random part is drawn from, beside its number."""
        digest = hashlib.sha256(self._text.encode()).hexdigest()
        return f"NIAH:{self.seed}:{digest[:12]}"

    def prepare(self, llm: "LLM") -> None:
        """Check the settings, tokenize the haystack once."""
        self._check()
        self._tokenizer, self._llm = llm.tokenizer, llm
        haystack = encode(self._tokenizer, self._text, special=False)
        self._token_ends = [end for _, end in haystack.offsets]
        ends = [0, *(match.end() for match in SENTENCE_END.finditer(self._text))]
        self._sentence_starts = [e + (self._text[e : e + 1] == " ") for e in ends[:-1]]
        for index in self.order()[-64:]:  # the longest; UUIDs differ by a few tokens
            self.sample(index)

    def _check(self) -> None:
        for where, text, hole in (
            ("needle", self.needle, "{uuid}"),
            ("template", self.template, "{context}"),
            ("template", self.template, "{question}"),
        ):
            if text.count(hole) != 1:
                raise UserError(f"task {where}: it must hold {hole} once")
        if not len(self):
            raise UserError("task: no sample; give `lengths`, `depths` and `runs` at least one value each")
        if min(_extent(self.lengths, "lengths")) < 1:
            raise UserError("task lengths: a haystack needs at least 1 token")
        if not all(0 <= depth <= 100 for depth in _extent(self.depths, "depths")):
            raise UserError("task depths: percent, so from 0 to 100")

    @functools.cache  # noqa: B019 (a task lives as long as its run)
    def _draw(self, index: int) -> Draw:
        # A string seeds through SHA-512: the same on every platform and Python.
        rng = random.Random(f"{self.seed}:{index}")
        key = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        u_length, u_depth, u_start = rng.random(), rng.random(), rng.random()
        length, depth = self._grid[index // self.runs]
        length = _between(self.lengths, u_length) if length is None else length
        depth = _between(self.depths, u_depth) if depth is None else depth
        start = u_start if self.haystack_start == "random" else 0.0
        return Draw(self.needle.replace("{uuid}", key), key, round(length), depth, start)

    def order(self) -> list[int]:
        """By length, so that a batch holds little padding; then by number."""
        return sorted(range(len(self)), key=lambda index: (self._draw(index).length, index))

    def sample(self, index: int) -> Sample:
        """The sample of that number.

        Raises:
            UserError: the needle's tokens cannot be told exactly, or the prompt is beyond the model's context.

        """
        draw = self._draw(index)
        haystack = self._context(draw.start, draw.length)
        context = insert(haystack, draw.needle, self._depth_in(haystack, draw.depth))
        user = self.template.replace("{context}", context).replace("{question}", self.question)
        prompt = render(self._tokenizer, self.system, user, self._llm.chat)
        needle = locate(prompt, draw.needle)
        span = needle if self.evidence == "needle" else locate(prompt, draw.key)
        budget = needle[1] - needle[0] + self.margin
        if len(prompt.ids) + budget > self._llm.context_length:
            raise UserError(
                f"task lengths: a haystack of {draw.length} tokens makes {len(prompt.ids) + budget} tokens with "
                f"needle, template and answer, beyond the {self._llm.context_length} of {self._llm.name}; "
                "lower `lengths`"
            )
        return Sample(
            index=index,
            id=f"{self._pool}:{index}",
            ids=prompt.ids,
            evidence=[span],
            budget=budget,
            question=self.question,
            gold=draw.key,
            fields={"length": draw.length, "depth": draw.depth, "needle": draw.needle},
        )

    def _context(self, start: float, length: int) -> str:
        """`length` tokens of the haystack from the chosen sentence on, repeated from the top if it ends early."""
        first = self._sentence_starts[int(start * len(self._sentence_starts))]
        token = bisect.bisect_right(self._token_ends, first)
        text, left = self._text[first:], length
        while left > len(self._token_ends) - token:
            left -= len(self._token_ends) - token
            text, first, token = f"{text} {self._text}", -len(text) - 1, 0
        return text[: self._token_ends[token + left - 1] - first]

    def _depth_in(self, context: str, depth: float) -> int:
        """Character position after `depth` percent of the context's tokens."""
        ends = [end for _, end in encode(self._tokenizer, context, special=False).offsets]
        count = round(len(ends) * depth / 100)
        return ends[count - 1] if count else 0

    def grade(self, sample: Sample, answer: str) -> dict[str, float]:
        """Accuracy (the whole UUID stands in the answer) and ROUGE-L (F measure)."""
        wanted = str(sample.fields["needle"]) if self.reference == "needle" else sample.gold
        return {"accuracy": float(sample.gold in answer), "rouge_l": rouge_l(wanted, answer)}


def insert(context: str, needle: str, limit: int) -> str:
    """The needle after the last sentence that ends at or before character `limit`; without one, in front."""
    ends = [match.end() for match in SENTENCE_END.finditer(context) if match.end() <= limit]
    at = ends[-1] if ends else 0
    parts = (context[:at].rstrip(), needle, context[at:].lstrip())
    return " ".join(part for part in parts if part)


def _grid_values(axis: Axis, name: str) -> list[float | None]:
    """Grid values of an axis; a drawn one has a single cell without a value."""
    if isinstance(axis, list):
        return list(axis)
    if set(axis) == {"low", "high"}:
        return [None]
    if set(axis) != {"start", "stop", "step"}:
        raise UserError(f"task {name}: a list, {{low, high}} or {{start, stop, step}}, not the keys {sorted(axis)}")
    if axis["step"] <= 0:
        raise UserError(f"task {name}: a grid's step must be positive, not {axis['step']}")
    count = int((axis["stop"] - axis["start"]) / axis["step"] + 1e-9) + 1
    return [axis["start"] + i * axis["step"] for i in range(count)]


def _between(axis: Axis, share: float) -> float:
    """The value of a drawn axis at a share of its way."""
    assert isinstance(axis, dict)
    return axis["low"] + share * (axis["high"] - axis["low"])


def _extent(axis: Axis, name: str) -> list[float]:
    """The values, or bounds, of an axis."""
    if isinstance(axis, dict) and "low" in axis:
        if axis["low"] > axis["high"]:
            raise UserError(f"task {name}: low {axis['low']} is above high {axis['high']}")
        return [axis["low"], axis["high"]]
    return [value for value in _grid_values(axis, name) if value is not None]

"""Algorithm 1 driven by a script instead of an LLM: every branch of it, token by token."""

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import UserError
from extract.generation import GenerationOutput, GenerationRequest, LastQueryState
from extract.prompts import ForcedOpening
from extract.tasks import AnswerFormat, Sample, find_answer
from probe.rag import (
    BM25,
    RIND,
    Always,
    Decoding,
    EveryN,
    GoldEvidence,
    OracleHeadsStrategy,
    Question,
    Run,
    RunSettings,
    Strategy,
    Trigger,
    Windows,
)
from probe.rag.requests import FullContextQuery, ReceivedAttention, run_together
from probe.rag.results import run_metrics
from probe.rag.stopping import complete_answer_end
from tests.helpers import reference_rag

MARKER = "So the answer is"
FORM = AnswerFormat(marker=MARKER)
SETTINGS = RunSettings(Decoding(draft_length=8, retries=2), FORM, max_tokens=30)
LONG = 20


class Pieces:
    """A tokenizer whose tokens are the pieces of text that it was given."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def ids(self, *pieces: str) -> list[int]:
        self.pieces += [piece for piece in dict.fromkeys(pieces) if piece not in self.pieces]
        return [self.pieces.index(piece) for piece in pieces]

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(self.pieces[number] for number in ids)


@dataclasses.dataclass
class Script:
    """Generations in order, as pieces; a last `None` is an end token. `unsure` words have a high entropy."""

    generations: list[list[str | None]]
    unsure: frozenset[str] = frozenset()

    def play(
        self,
        strategy: Strategy,
        settings: RunSettings = SETTINGS,
        trigger: Trigger | None = None,
        force: int = 0,
    ) -> Run:
        """The finished run."""
        tokenizer: Any = Pieces()
        if force:
            settings = dataclasses.replace(settings, opening=Opening(tokenizer, FORM.forced_opening, force))
        ids = list(range(LONG))
        sample = Sample(0, "q", ids, [(4, 6), (8, 9)], budget=30, question="Who?", gold="Oslo")
        question = Question(sample, (2, 12), [((2, 7), "A."), ((7, 12), "B.")], ids)
        strategy.prepare(Windows(heads=1, k=2, width=2), trigger or RIND(1.0))
        run = Run(question, strategy, settings, tokenizer)
        self.visible, steps, left = list[int](), run.steps(), list(self.generations)
        try:
            request = next(steps)
            while True:
                if isinstance(request, GenerationRequest):
                    self.visible.append(len(request.view))
                    request = steps.send(self._generate(tokenizer, request, left.pop(0)))
                elif isinstance(request, FullContextQuery):
                    rows = torch.zeros(2, len(request.view))
                    rows[:, 4] = 1
                    request = steps.send(LastQueryState(torch.zeros(3), rows))
                else:
                    assert isinstance(request, ReceivedAttention)
                    request = steps.send(torch.ones(len(request.draft)))
        except StopIteration:
            assert not left
        return run

    def _generate(self, tokenizer: Pieces, job: GenerationRequest, pieces: list[str | None]) -> GenerationOutput:
        said = list[int]()
        for piece in pieces:
            assert len(said) < job.limit
            assert not said or not job.stop(said)
            said += tokenizer.ids(piece) if piece is not None else []
        assert pieces[-1] is None or len(said) == job.limit or job.stop(said)
        entropies = tuple(9.0 if piece in self.unsure else 0.1 for piece in pieces if piece is not None)
        return GenerationOutput(tuple(said), entropies, pieces[-1] is None)


def decoding(**changes: int) -> RunSettings:
    return dataclasses.replace(SETTINGS, decoding=dataclasses.replace(SETTINGS.decoding, **changes))  # type: ignore[arg-type]


ANSWER: list[str | None] = [" So the answer is", " Oslo", ".", " And"]
SWIMS = frozenset({" swims"})


def test_a_full_stop_is_recognised_by_the_next_token_which_is_dropped() -> None:
    short = decoding(draft_length=3)
    run = Script([["It", " is", " 3"], [".", "5", " kg"], [".", *ANSWER[:2]], [".", " And"]]).play(
        OracleHeadsStrategy(), short
    )
    assert run.text == "It is 3.5 kg. So the answer is Oslo."
    assert (run.stop, len(run.rounds), run.stuck) == ("answered", 4, 0)
    assert [word.text for word in run.rounds[-1].decision.words] == ["Oslo."]  # And was never evaluated
    numbers = Script([["So the answer is", " 150", ".", "5", " acres", ".", "\n"]]).play(OracleHeadsStrategy())
    assert find_answer(numbers.text, MARKER) == "150.5 acres"


def test_only_strategies_that_read_the_full_context_are_charged_for_it() -> None:
    """Sentences by BM25 and the supporting facts need no forward over the context to be found."""
    draft: list[str | None] = ["It", " rains", ".", " Ada", " swims", ".", " She", " did"]
    rewrite: list[str | None] = [" Ada", " runs", ".", " The"]
    for strategy in (BM25(tokens=2), GoldEvidence(when="fired"), OracleHeadsStrategy(sink=0, local=0)):
        run = Script([draft, rewrite, ANSWER], SWIMS).play(strategy)
        assert run.rounds[0].retrieved is not None
        reads = isinstance(strategy, OracleHeadsStrategy)
        # The query runs the prompt and the three tokens kept, but for the two before the context.
        assert run.full_context_tokens == (LONG + 3 - 2 if reads else 0)
        assert run.forward_tokens == run.masked_tokens + run.full_context_tokens + run.attention_tokens


def test_an_uncertain_sentence_is_retracted_and_rewritten_after_a_retrieval() -> None:
    draft: list[str | None] = ["It", " rains", ".", " Ada", " swims", ".", " She", " did"]
    script = Script([draft, [" Ada", " runs", " 3", ".", "5", " km", ".", " The"], ANSWER], SWIMS)
    run = script.play(OracleHeadsStrategy(sink=0, local=0))
    first = run.rounds[0]
    assert (first.kept, first.rewrite) == ("It rains.", " Ada runs 3.5 km.")
    assert first.retrieved is not None
    assert first.retrieved.windows == [(3, 5)]
    assert script.visible == [10, 10 + 2 + 3, 10 + 2 + 10]  # hidden; a window; it stays until nothing fires
    assert run.text == "It rains. Ada runs 3.5 km. So the answer is Oslo."


def test_a_sentence_that_fires_again_and_again_is_kept_and_counted_once() -> None:
    again: list[str | None] = ["Ada", " swims", " far", " and", " on", " and", " on", " so"]
    more: list[str | None] = [" on", " swims", None]
    run = Script([again, again, again[:], again, again, more], SWIMS).play(OracleHeadsStrategy())
    assert [one.retrieved is not None for one in run.rounds] == [True, True, False, False]
    assert (run.stuck, run.stop) == (1, "ended")
    calm = Script([again, ["Ada", " runs", ".", " X"], [" Bo", None]], SWIMS).play(OracleHeadsStrategy())
    assert calm.stuck == 0
    once = decoding(retries=1)
    used_up = Script([again, ["Ada", " runs", ".", " X"], [" Bo", None]], SWIMS).play(OracleHeadsStrategy(), once)
    assert used_up.stuck == 0  # it may not fire again, and does not


@pytest.mark.parametrize(
    ("generations", "stop", "text"),
    [
        ([[None]], "ended", ""),
        ([["Ada", None]], "ended", "Ada"),
        ([["Ada", " swims", None], [None]], "ended", ""),  # the rewrite adds nothing
        ([["a"] * 8, ["b"] * 8, ["c"] * 8, ["d"] * 6], "length", "a" * 8 + "b" * 8 + "c" * 8 + "d" * 6),
        ([["So the answer is", " Oslo", ".", "\n\n"]], "answered", "So the answer is Oslo."),
        ([["So the answer is", " Oslo", ".\n"]], "answered", "So the answer is Oslo.\n"),
    ],
)
def test_how_a_run_ends(generations: list[list[str | None]], stop: str, text: str) -> None:
    run = Script(generations, SWIMS).play(OracleHeadsStrategy())
    assert (run.stop, run.text) == (stop, text)


def test_an_answer_alone_may_begin_with_a_line_end() -> None:
    alone = dataclasses.replace(SETTINGS, answer_format=AnswerFormat())
    run = Script([["\n", "Paris", "\n"]]).play(OracleHeadsStrategy(), alone)
    assert run.stop == "answered"
    assert find_answer(run.text) == "Paris"
    opened = AnswerFormat(opening="It is")
    assert complete_answer_end(" Paris.", opened) is None
    assert complete_answer_end(" Paris. ", opened) == len(" Paris.")


def test_fixed_intervals_and_gold_evidence_when_they_fire() -> None:
    draft: list[str | None] = ["One", " here", ".", " Two", ".", None]
    one, two = ["One", " now", ".", " X"], [" Two", " now", ".", " X"]
    run = Script([draft, [*one], [*draft], [*one], [*draft[3:]], [*two], [" Two", None], [" Two", None]]).play(
        GoldEvidence(when="fired"), trigger=Always()
    )
    found = [turn.retrieved.windows for turn in run.rounds if turn.retrieved]
    assert len(found) == 4
    assert found[0] == [(4, 6), (8, 9)]
    assert run_metrics(run)["first_chance"] == 3 / 10
    assert run_metrics(run)["recall"] == run_metrics(run)["precision"] == 1
    every = Script([draft, [*one], [*draft[3:]]]).play(GoldEvidence(when="fired"), trigger=EveryN(2))
    assert [turn.retrieved is not None for turn in every.rounds] == [True, False]
    always, fired = GoldEvidence(), GoldEvidence(when="fired", trigger=Always())
    for gold in (always, fired):
        gold.prepare(Windows(), RIND())
    assert (always.describe()["when"], fired.describe()["when"]) == ("always", "fired")


def test_no_evidence_gives_no_recall() -> None:
    run = Script([["Ada", " swims", None], [None]], SWIMS).play(OracleHeadsStrategy())
    without = dataclasses.replace(run.question.sample, evidence=[])
    run.question = dataclasses.replace(run.question, sample=without)
    assert str(run_metrics(run)["recall"]) == "nan"
    assert run_metrics(run)["visible"] == 2


@pytest.mark.parametrize(
    ("strategy", "setting"),
    [(BM25, {"tokens": 0}), (OracleHeadsStrategy, {"sink": -1}), (OracleHeadsStrategy, {"local": -1})],
)
def test_settings_out_of_range_are_refused(strategy: type[Strategy], setting: dict[str, int]) -> None:
    (name,) = setting
    with pytest.raises(UserError, match=f"{name}: at least"):
        strategy(**setting)


TEXT = st.lists(
    st.sampled_from(
        ["So the answer is", "so the answer is", " Oslo", "15", ".", " ", "\n", ":", "St", " The", '"', "é"]
    ),
    max_size=9,
).map("".join)


@given(TEXT, TEXT)
def test_the_end_of_an_answer(text: str, more: str) -> None:
    """Against a search letter by letter; text that follows changes neither the end nor the answer."""
    end = complete_answer_end(text, FORM)
    assert end == reference_rag.answer_end(text, reference_rag.Settings())
    if end is not None:
        assert complete_answer_end(text + more, FORM) == end
        assert find_answer(text + more, MARKER) == find_answer(text, MARKER) == find_answer(text[:end], MARKER)


class Opening(ForcedOpening):
    """An opening of one token, whose text is the marker."""

    def tokens(self, generated: Sequence[int]) -> list[int]:
        pieces: Any = self.tokenizer
        return pieces.ids(f" {MARKER}") if self.text(pieces.decode(generated)) else []


def test_an_answer_without_the_marker_is_continued_and_stays_as_it_is() -> None:
    draft: list[str | None] = ["It", " rains", None]
    plain = Script([draft]).play(OracleHeadsStrategy())
    script = Script([draft, [" Oslo", ".", " It"]])
    run = script.play(OracleHeadsStrategy(), force=3)
    assert (plain.text, plain.stop, plain.masked_tokens) == (run.text, run.stop, run.masked_tokens)
    assert (plain.continuation, run.forced_text) == (None, " Oslo. It")
    assert (plain.forward_tokens, plain.forced_tokens) == (run.forward_tokens, 0)
    assert run.forced_tokens == 1 + 2  # the opening, and what follows but for the last token
    assert script.visible == [10, 10 + 2 + 1]
    assert (FORM.forced(plain.text, None), FORM.forced(run.text, run.forced_text)) == ("", "Oslo")


def test_an_answer_is_forced_under_the_windows_of_its_last_tokens() -> None:
    draft: list[str | None] = ["It", " rains", ".", " Ada", " swims", ".", " She", " did"]
    accepted: list[str | None] = [" And", None]
    script = Script([draft, [" Ada", " runs", ".", " The"], accepted, [" Oslo", None]], SWIMS)
    run = script.play(OracleHeadsStrategy(sink=0, local=0), force=3)
    assert [one.retrieved is not None for one in run.rounds] == [True, False]
    assert script.visible == [10, 10 + 2 + 3, 10 + 2 + 6, 10 + 2 + 7 + 1]  # the window of two tokens stays


def test_an_answer_with_the_marker_is_not_forced() -> None:
    run = Script([["It", " is", ".", *ANSWER]]).play(OracleHeadsStrategy(), force=3)
    assert (run.stop, run.continuation, run.forced_tokens) == ("answered", None, 0)


@given(st.lists(st.integers(0, 4), max_size=6))
def test_every_run_is_counted_when_it_ends(lengths: list[int]) -> None:
    """Runs of some requests each; the counts add up, and none comes before its run's last request is answered."""
    answered, counted = [0], list[tuple[int, int]]()

    def run(requests: int) -> Any:
        for _ in range(requests):
            yield object.__new__(GenerationRequest)  # its content does not count here

    def generate(jobs: Sequence[Any]) -> list[None]:
        answered[0] += 1
        return [None] * len(jobs)

    masked: Any = SimpleNamespace(generate=generate)
    run_together(masked, [[run(length) for length in lengths]], lambda runs: counted.append((answered[0], runs)))
    assert dict(counted) == {n: lengths.count(n) for n in range(max(lengths, default=0) + 1)}
    assert len(counted) == len(dict(counted))


@given(st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=7), st.integers(1, 4))
def test_the_next_question_begins_where_one_has_ended(lengths: list[list[int]], slots: int) -> None:
    """A queue with `slots` servers, each of which serves one question at a time."""
    begun, ended, together = list[int](), list[int](), list[int]()

    def run(question: int, requests: int) -> Any:
        begun.append(question)
        for _ in range(requests):
            yield object.__new__(GenerationRequest)

    def generate(jobs: Sequence[Any]) -> list[None]:
        together.append(len(jobs))
        return [None] * len(jobs)

    masked: Any = SimpleNamespace(generate=generate)
    steps = [[run(question, requests) for requests in own] for question, own in enumerate(lengths)]
    run_together(masked, steps, ended.append, slots)
    assert begun == sorted(begun)
    assert sum(ended) == len(begun) == sum(map(len, lengths))
    # Each request takes one unit of time.
    free, expected = [0] * slots, [0] * sum(map(sum, lengths))
    for own in lengths:
        place = free.index(min(free))
        for requests in own:
            for time in range(free[place], free[place] + requests):
                expected[time] += 1
        free[place] += max(own, default=0)
    assert together == [count for count in expected if count]

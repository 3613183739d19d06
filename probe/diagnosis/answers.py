"""Answers of a batch with what is recorded of them: text, first tokens, critical token, heads amplified at it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from extract.generation import rotary_factors, rotary_groups
from extract.llm import LLM
from extract.tasks import Sample, Task
from extract.utils import frozen_inference
from probe.diagnosis.answer_forms import is_cut_off, is_other_form
from probe.diagnosis.critical_token import CriticalToken, GoldTokens, critical_tokens, gold_tokens
from probe.diagnosis.decoding import AnswerDecoding, Generated
from probe.diagnosis.interventions import amplified
from probe.diagnosis.predicted_heads import ReadProbe
from probe.diagnosis.segments import Segments, split_context
from probe.diagnosis.settings import Intervening, TrainingPrompts
from probe.diagnosis.statistics import writing_heads


@dataclass(frozen=True, eq=False)
class DiagnosedAnswer:
    """An answer and its record.

    Attributes:
        sample: The prompt.
        segments: Evidence and the rest of its context.
        generated: The answer's tokens.
        text: The answer.
        metric: Value of the task's metric.
        training: Whether it is one of the training prompts.
        other_form, cut_off: See `probe.diagnosis.Finding`.
        gold: Tokens of the right answer.
        token: The critical token; None where there is none, and for solved answers that are held out.
        heads: The heads that write most of the evidence, and as many random ones.
        amplified: The model's choice at the critical token with either amplified; empty without interventions.

    """

    sample: Sample
    segments: Segments
    generated: Generated
    text: str
    metric: float
    training: bool
    other_form: bool
    cut_off: bool
    gold: GoldTokens
    token: CriticalToken | None = None
    heads: tuple[list[int], ...] = ()
    amplified: tuple[int, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the metric is below 1."""
        return self.metric < 1

    @property
    def intervened(self) -> bool:
        """Whether interventions are tested on it."""
        return self.failed and not self.training


@dataclass(frozen=True)
class Recording:
    """How answers are recorded.

    Attributes:
        metric: The task's metric; an answer below 1 failed.
        early: First tokens that are recorded.
        training: Which prompts are training prompts.
        intervening: Interventions; None: none.
        probes: Probes that predict which heads act at critical tokens.

    """

    metric: str
    early: int
    training: TrainingPrompts
    intervening: Intervening | None
    probes: tuple[ReadProbe, ...] = ()

    @property
    def kept_states(self) -> int:
        """Hidden states that probes predict from, until a critical token."""
        return max((steps + 1 for one in self.probes for steps in one.steps), default=0)


@frozen_inference()
def record_batch(llm: LLM, task: Task, samples: Sequence[Sample], how: Recording) -> list[DiagnosedAnswer]:
    """Answer some prompts and record what a diagnosis needs.

    Raises:
        UserError: the task does not know the context of its prompts, or how the model's heads write to the logits is
            not known.

    """
    found = dict[int, DiagnosedAnswer]()
    for group in rotary_groups(llm.model, samples):
        with rotary_factors(llm.model, group):
            found.update(zip(group.indices, _record(llm, task, group.samples, how), strict=True))
    return [found[number] for number in range(len(samples))]


def is_training(sample: Sample, training: TrainingPrompts) -> bool:
    """Whether a prompt is a training prompt; its content and the seed decide."""
    # A string seeds through SHA-512: the same on every platform and Python.
    return random.Random(f"{training.seed}:{sample.id}").random() < training.share


def _record(llm: LLM, task: Task, samples: Sequence[Sample], how: Recording) -> list[DiagnosedAnswer]:
    segments = [split_context(task.context_span(sample.index), sample.evidence) for sample in samples]
    decoding = AnswerDecoding(llm, samples, [one.spans for one in segments], how.early)
    pairs = zip(samples, segments, decoding.run(), strict=True)
    answers = [_answer(llm, task, how, *pair) for pair in pairs]
    rows = [row for row, answer in enumerate(answers) if _is_followed(llm, answer)]
    if rows:
        chosen = [answers[row] for row in rows]
        tokens = critical_tokens(
            decoding, rows, [one.gold for one in chosen], [one.failed for one in chosen], how.kept_states
        )
        for row, token in zip(rows, tokens, strict=True):
            answers[row] = replace(answers[row], token=token)
    return _amplify(decoding, answers, how.intervening) if how.intervening else answers


def _answer(
    llm: LLM, task: Task, how: Recording, sample: Sample, segments: Segments, generated: Generated
) -> DiagnosedAnswer:
    text = str(llm.tokenizer.decode(generated.tokens, skip_special_tokens=True))
    stripped = text.strip()
    answer, metric = task.extracted(stripped), task.grade(sample, stripped)[how.metric]
    gold = task.gold_continuation(sample, text, solved=metric >= 1).in_form(text)
    return DiagnosedAnswer(
        sample=sample,
        segments=segments,
        generated=generated,
        text=stripped,
        metric=metric,
        training=is_training(sample, how.training),
        other_form=is_other_form(answer, sample.gold),
        cut_off=is_cut_off(answer, sample.gold, generated.ended, begun=not task.forced_opening(stripped)),
        gold=gold_tokens(llm, gold),
    )


def _is_followed(llm: LLM, answer: DiagnosedAnswer) -> bool:
    """Whether the critical token is searched: of failed answers, and of solved ones that give thresholds."""
    length = len(answer.sample.ids) + len(answer.gold.lead) + len(answer.gold.gold)
    return (answer.failed or answer.training) and length <= llm.context_length


def _amplify(decoding: AnswerDecoding, answers: list[DiagnosedAnswer], how: Intervening) -> list[DiagnosedAnswer]:
    """The named heads, and as many random ones, amplified at the critical token of each answer to intervene on."""
    rows, added, heads = list[int](), list[list[int]](), list[list[int]]()
    for row, answer in enumerate(answers):
        if answer.intervened and answer.token is not None:
            named = _named_heads(answer, answer.token, how)
            heads += named
            rows += [row] * len(named)
            added += [answer.gold.lead + answer.gold.gold[: answer.token.position]] * len(named)
    if rows:
        chosen = amplified(decoding, rows, added, heads, how.factor)
        for row in dict.fromkeys(rows):
            mine = [place for place, other in enumerate(rows) if other == row]
            answers[row] = replace(
                answers[row],
                heads=tuple(heads[place] for place in mine),
                amplified=tuple(chosen[place] for place in mine),
            )
    return answers


def _named_heads(answer: DiagnosedAnswer, token: CriticalToken, how: Intervening) -> list[list[int]]:
    named = writing_heads(token.to_right - token.to_wrong, len(answer.segments.evidence), how.heads)
    others = [head for head in range(len(token.attention)) if head not in named]
    sampled = random.Random(f"{how.seed}:{answer.sample.id}").sample(others, min(len(named), len(others)))
    return [named, sampled]

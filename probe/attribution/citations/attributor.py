"""`attribute`: an answer to a question about documents, and which of their sentences each of its tokens rests on."""

from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from extract.errors import UserError
from extract.llm import LLM
from extract.tasks import QuestionTexts
from extract.tasks.sources import Passage
from extract.utils import is_unicode
from probe.attribution.ablated_runs import AblatedRuns
from probe.attribution.citations.attributed_answer import GROUNDED_FROM, AttributedAnswer
from probe.attribution.citations.documents import Documents, as_documents
from probe.attribution.citations.grounding import context_share
from probe.attribution.methods import AttributionMethod, CopyingHeads, Prior
from probe.attribution.prompts import SourcedPrompt, SourcedPrompts
from probe.attribution.record import BUDGET, AttributionRecord, answer_tokens, check_lengths, record_answers
from probe.attribution.sources import Unit


class Attributor:
    """Answers questions about documents and attributes the answers, one after the other.

    Args:
        llm: The frozen model.
        unit: What a source is: a `sentence`, a `passage` (whole document) or a `token`.
        method: Attribution method; by default the attention of the heads that copy at the token.
        ablations: Extra runs with sources removed, for which the method's scores are the prior; 0: none.
        texts: Texts of the prompts; by default a chain of thought is asked for.
        budget: Most tokens of a generated answer.
        grounded_from: Context share from which a token is grounded.
        device: Where the model is placed; by default where it is.

    """

    def __init__(
        self,
        llm: LLM,
        unit: Unit = "sentence",
        method: AttributionMethod | None = None,
        ablations: int = 0,
        texts: QuestionTexts | None = None,
        budget: int = BUDGET,
        grounded_from: float = GROUNDED_FROM,
        device: torch.device | None = None,
    ) -> None:
        if ablations < 0:
            raise UserError(f"ablations: a number of runs from 0 on, not {ablations}")
        if not 0 <= grounded_from <= 1:
            raise UserError(f"grounded_from: a share from 0 to 1, not {grounded_from}")
        base = CopyingHeads() if method is None else method
        self.llm, self.budget, self.grounded_from = llm, budget, grounded_from
        self._unit, self._texts, self._device = unit, texts or QuestionTexts().in_style("chain"), device
        self._prepared = False
        self.method = Prior(base, ablations=ablations) if ablations else base
        self._prompts = SourcedPrompts(llm, self._texts, unit)

    def describe(self) -> dict[str, Any]:
        """Everything that determines the answers and their scores, in plain values."""
        return {
            "llm": self.llm.identity.as_dict(),
            "chat": self.llm.chat,
            "unit": self._unit,
            "method": self.method.describe(),
            "texts": asdict(self._texts),
            "budget": self.budget,
            "grounded_from": self.grounded_from,
        }

    def prompt(self, question: str, documents: Documents, answer: str | None = None) -> SourcedPrompt:
        """The prompt of a question, checked; needs no weights.

        Raises:
            UserError: there is no question or document, one has no text, the given answer has none or does not fit the
                tokenizer, or prompt and answer exceed the model's context.

        """
        if not isinstance(question, str) or not question.strip() or not is_unicode(question):
            raise UserError("a question without text; give it one")
        passages = [Passage(one.title, one.text) for one in as_documents(documents)]
        prompt = self._prompts.build(question, passages)
        tokens = self.budget if answer is None else len(answer_tokens(self.llm, answer))
        check_lengths(self.llm, prompt, tokens)
        return prompt

    def answer(self, prompt: SourcedPrompt, answer: str | None = None) -> AttributedAnswer:
        """The answer to a prompt, generated greedily or given, with its attribution."""
        if not self._prepared:
            self.method.prepare(self.llm)
            if self._device is not None:
                self.llm.to(self._device)
            self._prepared = True
        (record,) = record_answers(self.llm, [prompt], None if answer is None else [answer], self.budget)
        return self.attributed(prompt, record)

    def attributed(self, prompt: SourcedPrompt, record: AttributionRecord) -> AttributedAnswer:
        """The attribution of a recorded answer."""
        matrix = torch.zeros(0, len(prompt.sources))
        if record.texts:  # the model may end its answer before the first token
            matrix = self.method.attribute(record, prompt, AblatedRuns(self.llm, prompt, record.tokens))
        return attributed_answer(prompt, record, matrix, self.method, self.grounded_from)


def attributed_answer(
    prompt: SourcedPrompt,
    record: AttributionRecord,
    matrix: Float[Tensor, "token source"],
    method: AttributionMethod,
    grounded_from: float,
) -> AttributedAnswer:
    """A recorded answer with a method's scores."""
    return AttributedAnswer(
        question=prompt.question,
        documents=as_documents([{"title": one.title, "text": one.text} for one in prompt.passages]),
        tokens=record.texts,
        sources=prompt.sources,
        matrix=matrix,
        context_share=context_share(record),
        grounded_from=grounded_from,
        method=method.name,
    )


def attribute(
    llm: LLM,
    question: str,
    documents: Documents,
    *,
    unit: Unit = "sentence",
    method: AttributionMethod | None = None,
    ablations: int = 0,
    answer: str | None = None,
    texts: QuestionTexts | None = None,
    budget: int = BUDGET,
    grounded_from: float = GROUNDED_FROM,
) -> AttributedAnswer:
    """Answer a question from documents, and trace each token of the answer to its sources.

    Args:
        llm: The frozen model.
        question: The question.
        documents: Texts, or `{"title", "text"}`; a title precedes its text in the prompt and is no source.
        unit: What a source is: a `sentence`, a `passage` (whole document) or a `token`.
        method: Attribution method; by default the attention of the heads that copy at the token.
        ablations: Extra runs with sources removed, for which the method's scores are the prior; 0: none.
        answer: A text to attribute, whoever wrote it; None: the model answers greedily.
        texts: Texts of the prompt; by default a chain of thought is asked for.
        budget: Most tokens of a generated answer.
        grounded_from: Context share from which a token is grounded.

    Raises:
        UserError: there is no document, a document or the answer has no text, or they do not fit the model.

    >>> found = attribute(LLM(), "What does Ada do?", ["Bo left early.", "Ada sings in Oslo."], answer="Ada sings.")
    >>> [(one["text"], one["cited_text"]) for one in found.citations()]
    [('Ada sings', 'Ada sings in Oslo.')]

    """
    attributor = Attributor(llm, unit, method, ablations, texts, budget, grounded_from)
    return attributor.answer(attributor.prompt(question, documents, answer), answer)

"""Citations from transformers' `generate`, by one argument: `custom_generate=probe.citing(tokenizer, documents)`."""

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from extract.errors import UserError
from extract.llm import LLM, WrappedLLM
from probe.attribution.citations.attributed_answer import GROUNDED_FROM, AttributedAnswer
from probe.attribution.citations.attributor import attributed_answer
from probe.attribution.citations.documents import Documents, as_documents
from probe.attribution.citations.located import located_prompt
from probe.attribution.methods import AttributionMethod, CopyingHeads
from probe.attribution.prompts import SourcedPrompt
from probe.attribution.record import check_lengths, record_tokens
from probe.attribution.sources import Unit

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


class Citing:
    """A decoding loop for `generate(custom_generate=…)`: transformers' own loop, then the attribution of its tokens.

    What is generated, and what `generate` returns, is that of `generate` without it, sampling included. The tokens are
    then run a second time, with the heads recorded. Beam search and assisted generation are refused.

    Attributes:
        answers: The attributed answers of the last call, in the order of the returned sequences.

    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        documents: Documents,
        unit: Unit,
        method: AttributionMethod,
        question: str,
        grounded_from: float,
    ) -> None:
        self._tokenizer, self._documents, self._unit = tokenizer, as_documents(documents), unit
        self._method, self._question, self._grounded_from = method, question, grounded_from
        self.answers: list[AttributedAnswer] = []

    def __call__(
        self,
        model: "PreTrainedModel",
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: "GenerationConfig",
        **options: Any,
    ) -> Any:
        """Generate as transformers does, and attribute the answers."""
        self.answers = []
        llm = WrappedLLM(model, self._tokenizer)
        _check_mode(generation_config)
        prompts = [
            located_prompt(llm, ids, self._documents, self._unit, self._question)
            for ids in _unpadded(input_ids, options.get("attention_mask"))
        ]
        decoding: Any = type(model)
        for prompt in prompts:
            check_lengths(llm, prompt, budget=1)
        output = decoding._sample(
            model,
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            **options,
        )
        sequences = output if isinstance(output, Tensor) else output.sequences
        generated = sequences[:, input_ids.shape[1] :].tolist()
        self._attribute(llm, prompts, [_answer(row, generation_config) for row in generated])
        return output

    def _attribute(self, llm: LLM, prompts: Sequence[SourcedPrompt], answers: Sequence[Sequence[int]]) -> None:
        self._method.prepare(llm)
        for prompt, tokens in zip(prompts, answers, strict=True):
            if tokens:
                (record,) = record_tokens(llm, [prompt], [tokens])
                matrix = self._method.attribute(record, prompt)
                self.answers.append(attributed_answer(prompt, record, matrix, self._method, self._grounded_from))
            else:
                nothing = torch.zeros(0, len(prompt.sources)), torch.zeros(0)
                self.answers.append(AttributedAnswer(self._question, self._documents, (), prompt.sources, *nothing))


def _check_mode(config: "GenerationConfig") -> None:
    from transformers.generation.configuration_utils import GenerationMode

    if (mode := config.get_generation_mode()) not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        raise UserError(f"citing: greedy decoding or sampling, not {mode.value}; set num_beams=1")


def _unpadded(input_ids: Tensor, mask: Tensor | None) -> list[list[int]]:
    """Tokens of each prompt; `generate` leaves out a mask without padding."""
    if mask is None:
        return [list(row) for row in input_ids.tolist()]
    return [ids[real.bool()].tolist() for ids, real in zip(input_ids, mask[:, : input_ids.shape[1]], strict=True)]


def _answer(tokens: Sequence[int], config: "GenerationConfig") -> list[int]:
    """The tokens before the first end token, and before padding of rows that end otherwise."""
    ends = config.eos_token_id
    stops = {*(ends if isinstance(ends, list | tuple) else [ends])}
    found = list(takewhile(lambda token: token not in stops, tokens))
    while found and found[-1] == config.pad_token_id:
        found.pop()
    return found


def citing(
    tokenizer: "PreTrainedTokenizerBase",
    documents: Documents,
    *,
    unit: Unit = "sentence",
    method: AttributionMethod | None = None,
    question: str = "",
    grounded_from: float = GROUNDED_FROM,
) -> Citing:
    """A decoding loop by which transformers' `generate` gives citations; its output stays the same.

    Every prompt of the batch contains the documents word for word.

    Args:
        tokenizer: The model's fast tokenizer.
        documents: Texts, or `{"title", "text"}`, as the prompt shows them.
        unit: What a source is: a `sentence`, a `passage` (whole document) or a `token`.
        method: Attribution method without ablated runs; by default the attention of the heads that copy at the token.
        question: Heading of the answers' pages.
        grounded_from: Context share from which a token is grounded.

    Raises:
        UserError: there is no document, or one has no text; in `generate`: a document is not in the prompt, or the
            model's heads cannot be recorded.

    >>> llm = LLM()
    >>> inputs = llm.tokenizer("Ada sings in Oslo. Bo left early. Ada sings in", return_tensors="pt")
    >>> sources = citing(llm.tokenizer, ["Ada sings in Oslo.", "Bo left early."])
    >>> output = llm.model.generate(**inputs, max_new_tokens=2, do_sample=False, custom_generate=sources)
    >>> [(one["text"], one["cited_text"]) for one in sources.answers[0].citations()]
    [('Oslo', 'Ada sings in Oslo.')]

    """
    chosen = CopyingHeads() if method is None else method
    return Citing(tokenizer, documents, unit, chosen, question, grounded_from)

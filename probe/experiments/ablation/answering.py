"""One greedy answer of a frozen LLM, with chosen heads ablated or none: the quickest way to see what heads do."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from extract.errors import UserError
from extract.generation import DynamicHeads, StepHeads, generate_ablated
from extract.heads import HeadGrid
from extract.llm import LLM
from extract.prompts import render_chat_prompt
from extract.tasks import QuestionTexts, Sample

Head = tuple[int, int]
"""Layer, and index within it."""


@dataclass(frozen=True)
class Answer:
    """A greedy generation.

    Attributes:
        text: The answer.
        tokens: Generated tokens, the end token included.
        scoring: Heads with a copy-paste score (Eq. 1) at each step before ablation.

    """

    text: str
    tokens: Int[Tensor, "step"]
    scoring: Bool[Tensor, "step layer head"]


class _SameHeads:
    """Ablate the same heads at every step."""

    def __init__(self, heads: Bool[Tensor, "head"]) -> None:
        self._heads = heads

    def ablated(self, heads: StepHeads) -> Tensor:
        """The heads."""
        return self._heads.to(heads.dynamic.device).expand_as(heads.dynamic)


def answer(
    llm: LLM,
    prompt: str | Sequence[int],
    ablate: Sequence[Head] = (),
    evidence: Sequence[tuple[int, int]] = (),
    budget: int = 64,
    system: str = QuestionTexts.system,
) -> Answer:
    """Generate greedily with some heads' outputs zeroed at every step. The prefill of the prompt is clean.

    Args:
        llm: The frozen model.
        prompt: A user's message, which is put into the model's chat template with the options `llm.chat`, as a task's
            are; or the tokens of a whole prompt, as a score store has them (`store.steps(n).sample["prompt"]`).
        ablate: (layer, head) of the heads to ablate.
        evidence: Token spans of the evidence, for `Answer.scoring`.
        budget: Most tokens to generate.
        system: System message of a user's message; by default that of the questions' prompts.

    Raises:
        UserError: a head that the model does not have, or a budget below 1.

    """
    grid = HeadGrid(llm.identity.layers, llm.identity.heads)
    if budget < 1:
        raise UserError(f"answer: a budget of at least 1 token, not {budget}")
    condition = _SameHeads(grid.mask(ablate).flatten())
    if isinstance(prompt, str):
        prompt = render_chat_prompt(llm.tokenizer, system, prompt, llm.chat).ids
    sample = Sample(0, "", list(prompt), list(evidence), budget, "", "")
    found = generate_ablated(llm, [sample], [condition], DynamicHeads()).of(0, 0)
    text = str(llm.tokenizer.decode(found.tokens.tolist(), skip_special_tokens=True)).strip()
    return Answer(text, found.tokens, found.before.view(-1, grid.layers, grid.heads))

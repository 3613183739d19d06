"""One trial of an ablation run: a prompt generated under a condition."""

from typing import Any

from jaxtyping import Bool
from torch import Tensor

from extract.generation import AblatedGeneration
from extract.llm import LLM
from extract.prompts import decode_text
from extract.tasks import Sample, Task
from probe.results import Trial


def ablation_trial(
    llm: LLM, task: Task, sample: Sample, condition: str, generation: AblatedGeneration, static: Bool[Tensor, "head"]
) -> Trial:
    """The answer, its metrics, and the heads in numbers.

    Args:
        llm: The frozen model, whose tokenizer decodes the answer.
        task: Grades it.
        sample: The prompt.
        condition: Name of the condition.
        generation: The sample under the condition.
        static: The static set of the compensated heads.

    """
    answer = str(llm.tokenizer.decode(generation.tokens.tolist(), skip_special_tokens=True)).strip()
    forced = None if generation.continuation is None else decode_text(llm.tokenizer, generation.continuation)
    return {
        "sample": sample.index,
        "id": sample.name,
        "condition": condition,
        "length": sample.fields.get("length"),
        "depth": sample.fields.get("depth"),
        "metrics": task.grade_all(sample, answer, forced),
        **head_counts(generation, static),
        "gold": sample.gold,
        "answer": answer,
        **({"continuation": forced} if task.force else {}),
    }


def head_counts(generation: AblatedGeneration, static: Bool[Tensor, "head"]) -> dict[str, Any]:
    """Numbers of heads of a generation.

    `dynamic` and `ablated` are means over its steps, `ablated_by_step` the numbers themselves. Compensated heads
    E(s, t) score at step t after ablation and did not before: `compensated` is max_t |E(s, t)|, and
    `compensated_static` the paper's m(s) = max_t |E(s, t) ∩ static set| (Figs. 3 and 7).

    Args:
        generation: Of sample s.
        static: The static set, the top 20 in the paper.

    Two heads and one step: head 0 is dynamic and ablated, head 1 scores in its place.

    >>> import torch
    >>> before, after = torch.tensor([[True, False]]), torch.tensor([[False, True]])
    >>> generation = AblatedGeneration(torch.tensor([7]), before, ablated=before, after=after)
    >>> head_counts(generation, static=torch.tensor([True, True]))
    {'steps': 1, 'dynamic': 1.0, 'ablated': 1.0, 'ablated_by_step': [1], 'compensated': 1, 'compensated_static': 1}

    """
    compensated, ablated = generation.compensated(), generation.ablated.sum(dim=1)
    return {
        "steps": len(generation.tokens),
        "dynamic": float(generation.before.sum(dim=1).double().mean()),
        "ablated": float(ablated.double().mean()),
        "ablated_by_step": ablated.tolist(),
        "compensated": int(compensated.sum(dim=1).max()),
        "compensated_static": int((compensated & static).sum(dim=1).max()),
    }

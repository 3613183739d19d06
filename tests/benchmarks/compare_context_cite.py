"""Our ContextCite and mean attention beside the packages `context-cite` and `at2`, on the same answers and prompts.

Neither package is a dependency. In an environment of their own:

    python -m venv ENV && ENV/bin/pip install -e . context-cite at2
    ENV/bin/python -m tests.benchmarks.compare_context_cite --answers 20 --ablations 32

The embedded LLM answers synthetic two-hop questions. `context-cite` gets our prompts' tokens, whole and without some
sources, and samples its own masks; ours is fitted to the same masks, and to its own. Printed for each answer: largest
difference of log-probabilities and of scores, rank correlation of scores, LDS on held-out masks that neither has; and
of `at2`, which extracts the attention of every head, its scores with equal weights beside our mean attention. `at2`
knows Llama, Phi-3, Qwen2 and Gemma 3 only, and reads their modules.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from extract import LLM
from extract.tasks.sources import SyntheticQA
from probe.attribution import (
    AblatedRuns,
    AttributionRecord,
    ContextCite,
    MeanAttention,
    SourcedPrompt,
    SourcedPrompts,
    linear_datamodeling_score,
    record_answers,
)
from probe.attribution.masks import held_out_masks
from probe.metrics import Bootstrap, mean_interval

HELD_OUT = 32


class GivenMasks(ContextCite):
    """Ours, fitted to given masks."""

    def __init__(self, masks: Bool[Tensor, "run source"]) -> None:
        super().__init__(len(masks))
        self.masks = masks

    def ablations(self, runs: AblatedRuns) -> Tensor:
        """The masks."""
        del runs
        return self.masks


def citer(llm: LLM, prompt: SourcedPrompt, record: AttributionRecord, ablations: int) -> Any:
    """The package's, with our prompt, sources and answer."""
    from context_cite.context_citer import ContextCiter
    from context_cite.context_partitioner import BaseContextPartitioner

    class Sources(BaseContextPartitioner):  # type: ignore[misc]
        num_sources = len(prompt.sources)

        def split_context(self) -> None:
            """Done."""

        def get_source(self, index: int) -> str:
            return prompt.source_texts()[index]

        def get_context(self, mask: NDArray[np.bool_] | None = None) -> str:
            del mask
            return self.context

    class OurPrompt(ContextCiter):  # type: ignore[misc]
        _response_ids = record.tokens.tolist()

        def _get_prompt_ids(self, mask: NDArray[np.bool_] | None = None, return_prompt: bool = False) -> list[int]:
            del return_prompt
            return prompt.ids if mask is None else prompt.ablated(mask.tolist())

    return OurPrompt(llm.model, llm.tokenizer, "", prompt.question, num_ablations=ablations, partitioner=Sources(""))


def context_cite_row(llm: LLM, prompt: SourcedPrompt, record: AttributionRecord, ablations: int) -> dict[str, float]:
    """Ours and the package's ContextCite on one answer."""
    package = citer(llm, prompt, record, ablations)
    tokens = len(record.tokens)
    theirs, _ = package._get_attributions_for_ids_range(0, tokens)
    masks = torch.from_numpy(package._masks)
    held_out = held_out_masks(HELD_OUT, len(prompt.sources), seed=0)
    runs = AblatedRuns(llm, prompt, record.tokens, held_out)
    ours = GivenMasks(masks).scores(record, prompt, runs).numpy()
    own = ContextCite(ablations).scores(record, prompt, runs)
    log_probs = torch.from_numpy(package._logit_probs).sigmoid().log()
    truth = runs.log_probs(held_out).sum(dim=1)
    # The package may sample held-out masks, too: its LDS is on those that it has not.
    known = {tuple(mask) for mask in masks.tolist()}
    fresh = torch.tensor([tuple(mask) not in known for mask in held_out.tolist()])
    lds = {
        name: linear_datamodeling_score(torch.as_tensor(scores), held_out[fresh], truth[fresh])
        for name, scores in (("package", theirs), ("ours, its masks", ours), ("ours, own masks", own))
    }
    return {
        "log-prob. difference": float((log_probs - runs.log_probs(masks)).abs().max()),
        "score difference": float(np.abs(theirs - ours).max()),
        "largest score": float(np.abs(theirs).max()),
        "rank correlation": float(stats.spearmanr(theirs, ours).statistic),
        **{f"LDS {name}": value for name, value in lds.items()},
    }


def at2_row(llm: LLM, prompt: SourcedPrompt, record: AttributionRecord) -> dict[str, float]:
    """Attention of every head as the package extracts it, and its mean, beside ours."""
    from at2.attribution.attention import get_attention_weights

    start, tokens = len(prompt.ids), torch.tensor([[*prompt.ids, *record.tokens.tolist()]], device=llm.model.device)
    with torch.no_grad():
        hidden = [one[:, :-1] for one in llm.model(tokens, output_hidden_states=True).hidden_states]
    found = get_attention_weights(llm.model, hidden, start, tokens.shape[1], llm.model.config.model_type).cpu()
    by_source = torch.stack([sum_of(found, spans) for spans in prompt.spans], dim=-1).permute(2, 0, 1, 3)
    theirs, ours = by_source.mean(dim=(0, 1, 2)), MeanAttention().attribute(record, prompt).mean(dim=0)
    return {
        "attention difference": float((by_source - record.attention[..., :-2]).abs().max()),
        "at2 rank correlation": float(stats.spearmanr(theirs, ours).statistic),
    }


def sum_of(
    attention: Float[Tensor, "layer head token key"], spans: Sequence[tuple[int, int]]
) -> Float[Tensor, "layer head token"]:
    """Attention on the keys of some spans."""
    return torch.stack([attention[..., start:end].sum(dim=-1) for start, end in spans]).sum(dim=0)


def main() -> None:
    """Compare the packages that are installed, answer by answer, and print means with 95 % intervals."""
    parser = argparse.ArgumentParser(description="Our ContextCite and mean attention beside context-cite and at2.")
    parser.add_argument("--answers", type=int, default=20)
    parser.add_argument("--ablations", type=int, default=32)
    parser.add_argument("--budget", type=int, default=60, help="most tokens of an answer")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    llm = LLM()
    llm.to(torch.device(args.device))
    maker, rows = SourcedPrompts(llm), list[dict[str, float]]()
    for question in SyntheticQA(args.answers, seed=9).load().records:
        prompt = maker.build(question.question, question.passages)
        (record,) = record_answers(llm, [prompt], budget=args.budget)
        rows.append({**context_cite_row(llm, prompt, record, args.ablations), **at2_row(llm, prompt, record)})
        sys.stdout.write(f"{len(rows)}: " + ", ".join(f"{key} {value:.4g}" for key, value in rows[-1].items()) + "\n")
        sys.stdout.flush()
    for key in rows[0]:
        values = np.array([row[key] for row in rows])
        low, high = mean_interval(values, share=False, bootstrap=Bootstrap())
        sys.stdout.write(f"{key}: mean {values.mean():.4g} [{low:.4g}, {high:.4g}], largest {values.max():.4g}\n")


if __name__ == "__main__":
    main()

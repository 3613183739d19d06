"""Left-padded batches of prompts with room for their answers."""

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.errors import UserError
from extract.llm import is_windowed, narrowest_window
from extract.scores import ExcludedKeys, kept_keys
from extract.tasks import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Batch:
    """Prompts that end at the same column, followed by columns for their answers.

    Attributes:
        tokens: Token ids; an answer's are written as they are generated.
        real: Whether a column is a token of the sample rather than padding; columns of the answer are.
        evidence: Whether a column is a token of the needle or of a supporting fact.
        forced: Tokens of the answer that are given (teacher forcing); -1 where the model chooses.
        budgets: Most tokens of each answer.
        width: Columns of padding and prompt.
        padded_rows: Whether a row has padding; on the host, so that no step waits for the device to find out.
        evidence_here: `evidence` on the host, likewise.

    """

    tokens: Int[Tensor, "batch capacity"]
    real: Bool[Tensor, "batch capacity"]
    evidence: Bool[Tensor, "batch capacity"]
    forced: Int[Tensor, "batch step"]
    budgets: Int[Tensor, "batch"]
    width: int
    padded_rows: Bool[Tensor, "batch"]
    evidence_here: Bool[Tensor, "batch capacity"]

    @property
    def padded(self) -> bool:
        """Whether any row has padding."""
        return bool(self.padded_rows.any())

    @functools.cached_property
    def padding(self) -> Int[Tensor, "batch"]:
        """Columns of padding before each prompt."""
        return (~self.real).sum(dim=1)

    @functools.cached_property
    def positions(self) -> Int[Tensor, "batch capacity"]:
        """Position of each token in its unpadded sequence; 0 for padding."""
        return (self.real.cumsum(dim=1) - 1).clamp(min=0)

    def take(self, rows: Int[Tensor, "some"]) -> "Batch":
        """A copy of some rows, whose numbers are on the host."""
        there = rows.to(self.tokens.device, non_blocking=True)
        parts = {name: getattr(self, name)[there] for name in ("tokens", "real", "evidence", "forced", "budgets")}
        return replace(self, padded_rows=self.padded_rows[rows], evidence_here=self.evidence_here[rows], **parts)


def pad_answered(
    samples: Sequence[Sample],
    answers: Sequence[Sequence[int]],
    budgets: Sequence[int],
    width: int,
    fill: int,
    device: torch.device,
) -> Batch:
    """Samples with answers to continue: all answers end at the same column.

    The last token of a prompt moves with its answer, so that the columns before it are those of left-padded prompts
    without their last tokens; between both there may be padding. Without answers this is `pad`.

    Args:
        samples: The samples, none with a forced answer.
        answers: Of each of them, so far.
        budgets: Most tokens to come.
        width: Columns of padding and prompt.
        fill: Token id of padding and of tokens to come.
        device: Of the batch's tensors.

    """
    prompt, end = width - 1, width + max(len(answer) for answer in answers)
    shape = (len(samples), end + max(budgets))
    tokens, forced = torch.full(shape, fill, dtype=torch.long), torch.full((len(samples), max(budgets)), -1)
    real, evidence = torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
        first, last = width - len(sample.ids), end - 1 - len(answer)
        tokens[row, first:prompt] = torch.tensor(sample.ids[:-1], dtype=torch.long)
        tokens[row, last:end] = torch.tensor([sample.ids[-1], *answer])
        real[row, :first] = real[row, prompt:last] = False
        for start, stop in sample.evidence:
            evidence[row, first + start : first + stop] = True
        if last > prompt:
            evidence[row, last], evidence[row, prompt] = evidence[row, prompt].clone(), False
    return _placed(tokens, real, evidence, forced, torch.tensor(budgets), end, device)


def pad(samples: Sequence[Sample], fill: int, device: torch.device, width: int = 0) -> Batch:
    """Samples as a left-padded batch.

    Args:
        samples: The samples.
        fill: Token id of padding and of answers to come.
        device: Of the batch's tensors.
        width: Fewest columns of padding and prompt.

    """
    width = max(width, *(len(sample.ids) for sample in samples))
    shape = (len(samples), width + max(sample.budget for sample in samples))
    tokens = torch.full(shape, fill, dtype=torch.long)
    real, evidence = torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    forced = torch.full((len(samples), shape[1] - width), -1)
    for row, sample in enumerate(samples):
        first = width - len(sample.ids)  # prompts end at the same column, so that answers begin at the same one
        tokens[row, first:width] = torch.tensor(sample.ids)
        real[row, :first] = False
        for start, end in sample.evidence:
            evidence[row, first + start : first + end] = True
        if sample.forced is not None:
            forced[row, : sample.budget] = torch.tensor(sample.forced)
    budgets = torch.tensor([sample.budget for sample in samples])
    return _placed(tokens, real, evidence, forced, budgets, width, device)


def _placed(
    tokens: Tensor, real: Tensor, evidence: Tensor, forced: Tensor, budgets: Tensor, width: int, device: torch.device
) -> Batch:
    """A batch that was built on the host, row by row, on its device."""
    here = (~real).any(dim=1), evidence
    tokens, real, evidence, forced, budgets = (
        column.to(device, non_blocking=True) for column in (tokens, real, evidence, forced, budgets)
    )
    return Batch(tokens, real, evidence, forced, budgets, width, *here)


def reasoning_columns(batch: Batch, keys: int, excluded: ExcludedKeys) -> Float[Tensor, "batch key 2"]:
    """The two sums of Eq. 2 as columns of keys: kept evidence, and all kept keys.

    Args:
        batch: The batch.
        keys: Columns that the forward's query sees, its own included.
        excluded: Keys that Eq. 2 leaves out.

    """
    kept = kept_keys(batch.real[:, :keys], excluded)
    return torch.stack([kept & batch.evidence[:, :keys], kept], dim=2).float()


def check_forcing(model: "PreTrainedModel") -> None:
    """Check that ablated answers can be continued after a forced opening, with padding within their columns.

    Raises:
        UserError: a layer has a sliding window, which counts columns.

    """
    if is_windowed(model):
        raise UserError(
            f"task.force: {type(model).__name__} has sliding windows, in which an ablated answer cannot be continued; "
            "set it to 0"
        )


def warn_of_windows(model: "PreTrainedModel", samples: Sequence[Sample]) -> None:
    """Warn where a layer's sliding window is shorter than an evidence span: its heads see a part of it at most."""
    window = narrowest_window(model)
    longest = max((end - start for sample in samples for start, end in sample.evidence), default=0)
    if window is not None and longest > window:
        warnings.warn(
            f"{type(model).__name__}: layers with a window of {window} tokens cannot see evidence of {longest} tokens "
            "as a whole; scores of their heads count the part inside",
            stacklevel=2,
        )

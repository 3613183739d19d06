"""Tables of one extracted batch, as the score store keeps them."""

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from extract.generation import Decoded
from extract.pipeline.extraction import Extracted
from extract.store import vector_column
from extract.tasks import PromptBatch


def samples_table(batch: PromptBatch, extracted: Extracted, decoded: Decoded) -> pa.Table:
    """Rows of `samples`, one a prompt: tokens, evidence, task fields, answer, metrics, steps without an Eq. 2 score.

    A task that forces openings has the column `continuation`, the text after one.
    """
    missing = decoded.reasoning.isnan().all(dim=2).tolist()
    unscored = [sum(row[:length]) for row, length in zip(missing, decoded.lengths, strict=True)]
    forced = [{"continuation": text} if batch.task.force else {} for text in extracted.continuations]
    rows = zip(batch.samples, extracted.answers, forced, extracted.metrics, decoded.lengths, unscored, strict=True)
    return pa.Table.from_pylist(
        [
            {
                "sample": sample.index,
                "id": sample.id,
                "prompt": sample.ids,
                "evidence": [list(span) for span in sample.evidence],
                "question": sample.question,
                "gold": sample.gold,
                **sample.fields,
                "answer": answer,
                **continuation,
                "steps": steps,
                "unscored": without,
                **metrics,
            }
            for sample, answer, continuation, metrics, steps, without in rows
        ]
    )


def steps_table(batch: PromptBatch, rows: Decoded, argmax: bool, hidden_dtype: str) -> pa.Table:
    """Rows of `steps`, one a generated token: token, hidden state, scores and, if kept, argmax of all heads.

    Each row has the sample's id, which distinguishes rows of several stores.

    Args:
        batch: The samples.
        rows: Their generations, padded to one length.
        argmax: Keep each head's most attended position.
        hidden_dtype: Precision of the hidden states.

    """
    lengths = np.asarray(rows.lengths)
    real = np.arange(rows.tokens.shape[1])[None] < lengths[:, None]
    index = np.asarray([sample.index for sample in batch.samples])
    columns = {
        "sample": pa.array(np.repeat(index, lengths)),
        "id": pa.array(np.repeat([sample.id for sample in batch.samples], lengths)),
        "step": pa.array(np.nonzero(real)[1].astype(np.int32)),
        "token": pa.array(rows.tokens.numpy()[real].astype(np.int32)),
        "hidden": vector_column(rows.hidden.numpy()[real].astype(hidden_dtype)),
        "copy_paste": vector_column(rows.copy_paste.numpy()[real].astype(np.uint8)),
        "reasoning": vector_column(rows.reasoning.numpy()[real]),
    }
    if rows.contribution is not None:
        columns["contribution"] = vector_column(_evidence_contribution(batch, rows.contribution)[real])
    if argmax:
        columns["argmax"] = vector_column(rows.argmax.numpy()[real].astype(np.int32))
    return pa.table(columns)


def _evidence_contribution(
    batch: PromptBatch, contribution: Float[Tensor, "batch step head 1"]
) -> Float[np.ndarray, "batch step head"]:
    """Logit contribution of the evidence; a sample without evidence has none (NaN, not 0)."""
    found: NDArray[np.float32] = contribution[..., 0].numpy().copy()
    found[[not sample.evidence for sample in batch.samples]] = np.nan
    return found

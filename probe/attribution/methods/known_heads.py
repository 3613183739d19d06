"""Attribution by heads that are known before the answer: of a static ranking, or predicted by a trained probe."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from datamodules import Split
from extract.errors import UserError
from extract.heads import top_k_mask
from extract.llm import LLM
from extract.scores import Target
from extract.utils import PositiveInt, check_value
from probe.attribution.methods.base import RecordMethod
from probe.attribution.methods.heads import mean_over_heads
from probe.attribution.record import AttributionRecord
from probe.heads import read_ranking, store_ranking
from probe.models import ProbeClassifier, load, weights_digest

if TYPE_CHECKING:
    from probe.models import Probe


class StaticHeads(RecordMethod):
    """Mean attention of the top heads of a static ranking, the same at every token.

    Args:
        ranking: A published file (.json, .yaml, .tsv); null: of `store`.
        store: A score store, whose training samples rank the heads; null: of `ranking`.
        n: Number of heads.
        target: Score of the store to rank by.
        split: Which samples of the store are training samples.
        name: Its name in tables.

    """

    default_name = "static heads"

    def __init__(
        self,
        ranking: str | None = None,
        store: str | None = None,
        n: PositiveInt = 20,
        target: Target = "copy_paste",
        split: Split = Split(),  # noqa: B008 (frozen)
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        check_value(n, PositiveInt, "StaticHeads.n")
        self.ranking, self.store, self.n, self.target, self.split = ranking, store, n, target, split

    def prepare(self, llm: LLM) -> None:
        """Read the ranking.

        Raises:
            UserError: neither or both of file and store are given, or the ranking does not fit the model.

        """
        if (self.ranking is None) == (self.store is None):
            raise UserError("StaticHeads: give either `ranking`, a file, or `store`, a score store")
        grid = llm.identity.layers, llm.identity.heads
        found = read_ranking(self.ranking) if self.ranking else store_ranking(str(self.store), self.target, self.split)
        self.heads: Bool[Tensor, "layer head"] = found.on_grid(*grid).top_mask(self.n).view(grid)
        self.settings = {"heads": self.heads.flatten().nonzero().flatten().tolist()}

    def score_record(self, record: AttributionRecord) -> Tensor:
        """Mean attention of the static heads."""
        return mean_over_heads(record.attention[..., :-2], self.heads.expand_as(record.copies))


class PredictedHeads(RecordMethod):
    """Mean attention of the heads that a trained probe predicts from the hidden state, before they act.

    Args:
        checkpoint: A probe of this model: a checkpoint, or a folder of `save_pretrained`.
        top: Heads of highest predicted score; null: the heads that a classifier predicts to copy, 20 of a regressor.
        name: Its name in tables.

    """

    default_name = "predicted heads"

    def __init__(self, checkpoint: str, top: PositiveInt | None = None, name: str | None = None) -> None:
        super().__init__(name)
        if top is not None:
            check_value(top, PositiveInt, "PredictedHeads.top")
        self.checkpoint, self.top = checkpoint, top

    def prepare(self, llm: LLM) -> None:
        """Load the probe; one of another model is refused."""
        self.probe: Probe = load(self.checkpoint, llm=llm.identity)
        self.settings = {"probe": weights_digest(self.probe), "top": self.top}

    @torch.inference_mode()
    def predicted(self, record: AttributionRecord) -> Bool[Tensor, "token layer head"]:
        """The heads of each token."""
        hidden = record.hidden.to(self.probe.head_means)
        if isinstance(self.probe, ProbeClassifier) and self.top is None:
            heads = self.probe.predict_heads(hidden)
        else:
            heads = top_k_mask(self.probe.predict_scores(hidden), self.top or 20)
        return heads.view_as(record.copies)

    def score_record(self, record: AttributionRecord) -> Tensor:
        """Mean attention of the predicted heads."""
        return mean_over_heads(record.attention[..., :-2], self.predicted(record))

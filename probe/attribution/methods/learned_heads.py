"""Attribution by learned head weights, static or dependent on the hidden state."""

import torch
from torch import Tensor

from extract.errors import UserError
from extract.llm import LLM
from extract.utils import user_path
from probe.attribution.learned.effects import source_features
from probe.attribution.learned.weights import HeadWeights
from probe.attribution.methods.base import RecordMethod
from probe.attribution.record import AttributionRecord
from probe.models import load_trained, weights_digest


class LearnedHeads(RecordMethod):
    """Weighted sum over heads of attention or logit contribution, by weights that were trained on ablation effects.

    Args:
        checkpoint: Of `lightning fit -c configs/attributor.yaml`, for this model: `HeadWeights` are AT2's, one weight a
            head; `DynamicHeadWeights` depend on the hidden state.
        name: Its name in tables.

    """

    default_name = "learned heads"

    def __init__(self, checkpoint: str, name: str | None = None) -> None:
        super().__init__(name)
        self.checkpoint = checkpoint

    def prepare(self, llm: LLM) -> None:
        """Load the weights.

        Raises:
            UserError: there are none, or they are of another model.

        """
        if not user_path(self.checkpoint).exists():
            raise UserError(
                f"no head weights at {self.checkpoint}; train them with: lightning fit -c configs/attributor.yaml"
            )
        self.weights = load_trained(HeadWeights, self.checkpoint, llm=llm.identity)
        self.settings = {
            "weights": weights_digest(self.weights),
            "kind": type(self.weights).__name__,
            "features": self.weights.features,
        }

    @property
    def training_ids(self) -> frozenset[str]:
        """Ids of the training and validation answers."""
        return self.weights.training_ids

    @torch.inference_mode()
    def score_record(self, record: AttributionRecord) -> Tensor:
        """Weighted sums."""
        features = source_features(record, self.weights.features)
        return self.weights.scores(record.hidden.float(), features.float())

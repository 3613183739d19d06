"""Attribution at random: the floor that other methods are compared with."""

import numpy as np
import torch
from torch import Tensor

from extract.utils import Seed
from probe.attribution.ablated_runs import AblatedRuns
from probe.attribution.methods.base import AttributionMethod
from probe.attribution.prompts import SourcedPrompt
from probe.attribution.record import AttributionRecord


class RandomSources(AttributionMethod):
    """Scores that are uniform in [0, 1) and depend on the answer's tokens and the seed alone.

    Args:
        seed: Of the scores.
        name: Its name in tables.

    """

    default_name = "random"

    def __init__(self, seed: Seed = 0, name: str | None = None) -> None:
        super().__init__(name, seed=seed)
        self.seed = seed

    def attribute(self, record: AttributionRecord, prompt: SourcedPrompt, runs: AblatedRuns | None = None) -> Tensor:
        """Random scores."""
        del runs
        rng = np.random.default_rng([self.seed, *record.tokens.tolist()])
        return torch.from_numpy(rng.random((len(record.tokens), len(prompt.sources)))).float()

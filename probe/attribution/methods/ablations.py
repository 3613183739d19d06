"""Attribution by ablated runs of the answer: leave-one-out, and ContextCite's sparse linear model."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from extract.utils import PositiveFloat, PositiveInt, check_value
from probe.attribution.ablated_runs import AblatedRuns
from probe.attribution.masks import leave_one_out_masks
from probe.attribution.methods.base import AttributionMethod
from probe.attribution.prompts import SourcedPrompt
from probe.attribution.record import AttributionRecord


class LeaveOneOut(AttributionMethod):
    """Drop in log-probability when one source alone is removed: `log p(t | all) - log p(t | all but s)`, in nats."""

    default_name = "leave-one-out"

    def ablations(self, runs: AblatedRuns) -> Tensor:
        """One run a source."""
        return leave_one_out_masks(runs.sources)

    def attribute(self, record: AttributionRecord, prompt: SourcedPrompt, runs: AblatedRuns | None = None) -> Tensor:
        """The drops."""
        del prompt
        runs = self.needed(runs)
        return (record.log_probs - runs.log_probs(self.ablations(runs))).T


def answer_logit(log_prob: Float[np.ndarray, "*run"]) -> Float[np.ndarray, "*run"]:
    """Log odds of a probability given by its logarithm: `log(p / (1 - p))`.

    >>> answer_logit(np.log(np.array([0.5, 0.75]))).round(4)
    array([0.    , 1.0986])

    """
    bounded = np.minimum(log_prob, -1e-9)  # p = 1 by rounding has no finite logit
    return np.asarray(bounded - np.log(-np.expm1(bounded)))


class ContextCite(AttributionMethod):
    """ContextCite (Cohen-Wang et al. 2024): a sparse linear model of the answer's logit, fitted to random ablations.

    The lasso minimises `|y - X w - b|² / 2m + alpha |w|₁` over the standardised 0/1 masks `X` of `m` runs, in which
    each source stays with probability ½. `y` is the log odds of the answer's probability, divided by its tokens.
    Scores of single tokens are those of the same model of each token's log odds.

    Args:
        ablations: Number of runs; fewer where there are not as many sets of sources.
        alpha: Strength of the lasso (0.01 is its authors').
        name: Its name in tables.

    """

    default_name = "ContextCite"

    def __init__(self, ablations: PositiveInt = 32, alpha: PositiveFloat = 0.01, name: str | None = None) -> None:
        super().__init__(name or f"{self.default_name} {ablations}", ablations=ablations, alpha=alpha)
        check_value(ablations, PositiveInt, "ContextCite.ablations")
        check_value(alpha, PositiveFloat, "ContextCite.alpha")
        self.count, self.alpha = ablations, alpha

    def ablations(self, runs: AblatedRuns) -> Tensor:
        """Random runs."""
        return runs.sampled(self.count)

    def attribute(self, record: AttributionRecord, prompt: SourcedPrompt, runs: AblatedRuns | None = None) -> Tensor:
        """Weights of the model of each token."""
        del record, prompt
        masks, log_probs = self._found(runs)
        return lasso_weights(masks, answer_logit(log_probs.double().numpy()), self.alpha)

    def scores(self, record: AttributionRecord, prompt: SourcedPrompt, runs: AblatedRuns | None = None) -> Tensor:
        """Weights of the model of the whole answer."""
        del prompt
        masks, log_probs = self._found(runs)
        tokens = max(1, len(record.tokens))
        logits = answer_logit(log_probs.double().sum(dim=1, keepdim=True).numpy()) / tokens
        return lasso_weights(masks, logits, self.alpha)[0] * tokens

    def _found(self, runs: AblatedRuns | None) -> tuple[Bool[Tensor, "run source"], Float[Tensor, "run token"]]:
        runs = self.needed(runs)
        masks = self.ablations(runs)
        return masks, runs.log_probs(masks)


def lasso_weights(
    masks: Bool[Tensor, "run source"], outputs: Float[np.ndarray, "run output"], alpha: float
) -> Float[Tensor, "output source"]:
    """Weights of lasso models on standardised masks, in units of the outputs; zero without a run.

    Args:
        masks: Kept sources of each run.
        outputs: What the models predict, each by itself.
        alpha: Strength of the lasso.

    >>> masks = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    >>> lasso_weights(masks, np.array([[3.0], [3.0], [1.0], [1.0]]), alpha=0.01)
    tensor([[1.9800, 0.0000]])

    """
    from sklearn.linear_model import Lasso
    from sklearn.preprocessing import StandardScaler

    runs, sources = masks.shape
    if not runs or not outputs.shape[1]:
        return torch.zeros(outputs.shape[1], sources)
    scaler = StandardScaler()
    standardised = scaler.fit_transform(masks.double().numpy())
    weights = Lasso(alpha=alpha).fit(standardised, outputs).coef_.reshape(-1, sources)
    return torch.from_numpy(weights / scaler.scale_).float()

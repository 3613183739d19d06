"""Scores of another method as a prior for a few ablated runs."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from extract.errors import UserError
from extract.llm import LLM
from extract.utils import NonNegativeInt, PositiveFloat, check_value
from probe.attribution.ablated_runs import AblatedRuns
from probe.attribution.methods.base import AttributionMethod
from probe.attribution.methods.choice_file import chosen_ridge
from probe.attribution.prompts import SourcedPrompt
from probe.attribution.record import AttributionRecord


class Prior(AttributionMethod):
    """Ridge regression around another method's scores, on a few random ablations and the answer itself.

    Log-probabilities of the runs are modelled as `y = b + X (a s + w)`, for masks `X` and prior scores `s`. The scale
    `a ≥ 0` is given, or fits the answer's log-probability; `w` is ridge regression of each token's residual. Scores are
    `a s + w`. With four runs a fitted scale is poorly known, and one that was chosen on other answers is better.

    Args:
        method: Gives the prior scores; it may not need ablated runs itself.
        ablations: Number of runs; 0: the prior scores alone.
        strength: Of the ridge: penalty of `|w|²` against the squared error; null: that of `choice_file`.
        scale: Log-probability in nats that a score of 1 stands for; null: that of `choice_file`, or fitted to the runs.
        choice_file: results.json of `probe.AttributionChoice`, which chose both on training answers; null: none.
        name: Its name in tables.

    """

    def __init__(
        self,
        method: AttributionMethod,
        ablations: NonNegativeInt = 4,
        strength: PositiveFloat | None = 1.0,
        scale: PositiveFloat | None = None,
        choice_file: str | None = None,
        name: str | None = None,
    ) -> None:
        self.default_name = f"{method.name} + {ablations} runs"
        super().__init__(name, ablations=ablations, strength=strength, scale=scale)
        check_value(ablations, NonNegativeInt, "Prior.ablations")
        for key, value in (("strength", strength), ("scale", scale)):
            if value is not None:
                check_value(value, PositiveFloat, f"Prior.{key}")
        self.method, self.count, self.choice_file = method, ablations, choice_file
        self.strength, self.scale = strength, scale
        self._chosen_on = frozenset[str]()

    def prepare(self, llm: LLM) -> None:
        """Prepare the other method, and read the strength.

        Raises:
            UserError: the method needs ablated runs itself, or there is no strength, or two.

        """
        if (self.settings["strength"] is None) == (self.choice_file is None):
            raise UserError("Prior: give either `strength`, a number, or `choice_file` with `strength: null`")
        if self.choice_file is not None and self.settings["scale"] is not None:
            raise UserError("Prior: `choice_file` has the scale, too; set `scale: null`")
        if type(self.method).ablations is not AttributionMethod.ablations:
            raise UserError(f"Prior: {type(self.method).__name__} needs ablated runs itself; choose another method")
        self.method.prepare(llm)
        if self.choice_file is not None and self.count:
            described = self.method.describe()
            found = chosen_ridge(self.choice_file, described, self.count, llm.identity)
            self.strength, self.scale, self._chosen_on = found

    @property
    def training_ids(self) -> frozenset[str]:
        """Ids of the samples that the other method was trained on, and of those that the ridge was chosen on."""
        return self.method.training_ids | self._chosen_on

    def describe(self) -> dict[str, Any]:
        """Settings, and those of the other method."""
        ridge = {"strength": self.strength, "scale": self.scale}
        return {**super().describe(), **ridge, "method": self.method.describe()}

    def ablations(self, runs: AblatedRuns) -> Tensor:
        """Random runs."""
        return runs.sampled(self.count)

    def attribute(self, record: AttributionRecord, prompt: SourcedPrompt, runs: AblatedRuns | None = None) -> Tensor:
        """The prior's scores, corrected by the runs."""
        prior = self.method.attribute(record, prompt)
        if not self.count:
            return prior
        runs = self.needed(runs)
        assert self.strength is not None
        masks = self.ablations(runs)
        whole = torch.ones(1, masks.shape[1], dtype=torch.bool)
        log_probs = torch.cat([record.log_probs[None], runs.log_probs(masks)])
        return corrected(prior, torch.cat([whole, masks]), log_probs, self.strength, self.scale)


def corrected(
    prior: Float[Tensor, "token source"],
    masks: Bool[Tensor, "run source"],
    log_probs: Float[Tensor, "run token"],
    strength: float,
    scale: float | None = None,
) -> Float[Tensor, "token source"]:
    """Prior scores in units of log-probability, plus ridge regression of what they leave unexplained.

    Args:
        prior: Scores of each source for each token.
        masks: Kept sources of each run.
        log_probs: Of the answer's tokens in each run.
        strength: Of the ridge.
        scale: Of the prior scores; None: fitted to the runs.

    >>> masks = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    >>> corrected(torch.tensor([[1.0, 0.0]]), masks, torch.tensor([[0.0], [0.0], [-2.0], [-2.0]]), strength=1.0)
    tensor([[2., 0.]])

    """
    from sklearn.linear_model import Ridge

    if not len(prior):  # an empty answer
        return prior
    kept = masks.double()
    predicted, found = kept @ prior.double().T, log_probs.double()
    if scale is None:
        scale = nonnegative_slope(predicted.sum(dim=1), found.sum(dim=1))
    residual = found - scale * predicted
    weights = Ridge(alpha=strength).fit(kept.numpy(), residual.numpy()).coef_.reshape(prior.shape)
    return (scale * prior.double() + torch.from_numpy(weights)).float()


def nonnegative_slope(x: Float[Tensor, "run"], y: Float[Tensor, "run"]) -> float:
    """Slope of the least-squares line, at least 0; 0 where `x` is constant.

    >>> nonnegative_slope(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 3.0]))
    2.0

    """
    x, y = x - x.mean(), y - y.mean()
    square = float(x @ x)
    return max(0.0, float(x @ y) / square) if square > 0 else 0.0

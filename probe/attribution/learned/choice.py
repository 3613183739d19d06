"""Choice of a method, and of the ridge's strength around it, on validation answers of ablation effects alone."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from extract.errors import UserError
from extract.llm import LLM
from extract.pipeline import LLMStage
from extract.utils import NonNegativeInt, PositiveFloat, frozen_inference
from probe.attribution.learned.batches import AblationEffects
from probe.attribution.learned.effects import AnswerEffects
from probe.attribution.methods.base import AttributionMethod, RecordMethod
from probe.attribution.methods.prior import corrected, nonnegative_slope
from probe.attribution.metrics import linear_datamodeling_score
from probe.metrics import Bootstrap, Estimate, GatheredRows, mean_interval
from probe.results import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_HELD_OUT = 8
"""Runs of an answer that no candidate uses; answers with fewer are left out."""


@dataclass(frozen=True)
class Candidate:
    """A method, alone or as the prior of a ridge on some ablated runs.

    Attributes:
        method: Its name.
        ablations: Number of runs.
        strength: Of the ridge; None without runs.
        scale: Of the method's scores; None: fitted to the runs of each answer.

    """

    method: str
    ablations: int
    strength: float | None
    scale: float | None = None


class AttributionChoice(LLMStage):
    """Compare methods, numbers of ablated runs and strengths of the ridge on answers that weights were validated on.

    The LDS of each candidate is over the last runs of an answer, which no candidate uses. The model is not run: the
    stores of effects hold all runs. Scores of a method are scaled by their slope in each answer's own runs, or by the
    median of that slope over answers. `Prior.choice_file` reads the results.

    Args:
        llm: The frozen model (linked from the top-level `llm:`); only its identity is needed.
        methods: Methods that need the record alone.
        ablations: Numbers of ablated runs.
        strengths: Of the ridge.
        bootstrap: For the intervals.

    """

    experiment = "attribution_choice"

    def __init__(
        self,
        llm: LLM | None = None,
        methods: list[AttributionMethod] | None = None,
        ablations: Sequence[NonNegativeInt] = (0, 4, 8, 32),
        strengths: Sequence[PositiveFloat] = (0.1, 0.3, 1.0, 3.0, 10.0),
        bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(llm)
        self.methods, self.ablations, self.strengths = methods or [], tuple(ablations), tuple(strengths)
        self.bootstrap = bootstrap
        self.gathered = GatheredRows()
        self.results: dict[str, Any] = {}

    @property
    def _data(self) -> AblationEffects:
        data: Any = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, AblationEffects):
            raise UserError("a method is chosen on probe.AblationEffects: set data.class_path to it")
        return data

    def setup(self, stage: str) -> None:
        """Prepare the methods.

        Raises:
            UserError: there is no candidate, the effects are of another LLM, or a method was trained on other answers.

        """
        del stage
        data = self._data
        names = Counter(method.name for method in self.methods)
        if not names or max(names.values()) > 1:
            raise UserError("model.methods: at least one is needed, each with a `name` of its own")
        if not self.ablations or (max(self.ablations) and not self.strengths):
            raise UserError("model.ablations and model.strengths: at least one of each is needed")
        if not self.llm.identity.same_model(data.identity):
            raise UserError(f"{data.stores[0].folder} has answers of {data.identity}, not of {self.llm.identity}")
        self._prepared = dict[str, RecordMethod]()
        for method in self.methods:
            if not isinstance(method, RecordMethod):
                raise UserError(f"model.methods: {type(method).__name__} needs more than the record of the answer")
            method.prepare(self.llm)
            self._check_trained(method)
            self._prepared[method.name] = method
        self._scales: dict[str, float] = {}

    def _check_trained(self, method: AttributionMethod) -> None:
        """Refuse weights for which these are no validation answers: the split is the same where they were trained."""
        record = getattr(getattr(method, "weights", None), "training_record", None)
        held = self._data.part_ids("val")
        if record is not None and held & method.training_ids and record["split"] != self._data.split_record():
            raise UserError(
                f"'{method.name}' was trained on answers that are validation answers here: give the same stores in the "
                "same order and the same data.split as in its training"
            )

    @property
    def candidates(self) -> list[Candidate]:
        """All candidates, once the scales are known."""
        return [
            Candidate(method, count, strength, scale)
            for method, typical in self._scales.items()
            for count in self.ablations
            for strength in (self.strengths if count else (None,))
            for scale in ((None, typical) if count and typical else (None,))
        ]

    def on_test_start(self) -> None:
        """Find each method's median scale; every process reads all answers for it."""
        answers, most = self._data.held_out(), max(self.ablations)
        with frozen_inference():
            for name, method in self._prepared.items():
                slopes = [_slope(method.score_record(answer.record), answer, most) for answer in answers]
                self._scales[name] = float(np.median(slopes)) if slopes else 0.0

    def test_step(self, number: int) -> None:
        """LDS of every candidate on one answer."""
        chosen = self._data.held_out()[number : number + 1]  # none for a process without any answer
        found = torch.zeros(len(chosen), len(self.candidates))
        with frozen_inference():
            for row, answer in zip(found, chosen, strict=True):
                row.copy_(self._lds(answer))
        found, numbers = found.to(self.device), torch.tensor([number] * len(chosen), device=self.device)
        self.gathered.update(found, found[:, :1], numbers)

    def _lds(self, answer: AnswerEffects) -> Float[Tensor, "candidate"]:
        """Of each candidate; NaN for an answer with too few runs, or one whose log-probability does not vary."""
        most, true = max(self.ablations), answer.run_log_probs.sum(dim=1)
        if len(answer.masks) < most + LEAST_HELD_OUT:
            return torch.full((len(self.candidates),), torch.nan)
        priors = {name: method.score_record(answer.record) for name, method in self._prepared.items()}
        scores = [candidate_scores(priors[one.method], answer, one) for one in self.candidates]
        found = [linear_datamodeling_score(one, answer.masks[most:], true[most:]) for one in scores]
        return torch.tensor(found)

    def on_test_epoch_end(self) -> None:
        """Mean LDS of the candidates, and the best of each number of runs."""
        values = self.gathered.drain()[0].double().numpy()
        table = values[~np.isnan(values).any(axis=1)]
        if not len(table):
            raise UserError(
                f"no validation answer has {max(self.ablations) + LEAST_HELD_OUT} ablated runs: make effects with more "
                "`model.init_args.ablations`, or choose among fewer"
            )
        described = {method.name: method.describe() for method in self.methods}
        rows = [
            {**asdict(one), "description": described[one.method], "lds": self._estimate(table[:, place])}
            for place, one in enumerate(self.candidates)
        ]
        data = self._data
        self.results = {
            "llm": self.llm.identity.as_dict(),
            "store": data.fingerprint,
            "stores": [str(store.folder) for store in data.stores],
            "split": data.split_record(),
            "samples": sorted(data.part_ids("val")),
            "answers": len(table),
            "left_out": len(values) - len(table),
            "used": max(self.ablations),
            **asdict(self.bootstrap),
            "candidates": rows,
            "best": {str(count): best_candidate(rows, count) for count in self.ablations},
        }

    def _estimate(self, values: Float[np.ndarray, "answer"]) -> dict[str, float | None]:
        interval = mean_interval(values, share=False, bootstrap=self.bootstrap)
        return Estimate(float(values.mean()), *interval, len(values)).as_dict()

    def records(self) -> list[dict[str, Any]]:
        """A row for each candidate."""
        names = ("method", "ablations", "strength", "scale")
        return [{**{name: row[name] for name in names}, **row["lds"]} for row in self.results["candidates"]]

    def table(self) -> TextTable:
        """The best strength and scale of each method and number of runs; the best of these has an asterisk."""
        title = f"Choice of a method on {self.results['answers']} validation answers of {self.results['llm']['name']}"
        caption = (
            "LDS [95 % bootstrap interval over answers], over runs that no candidate uses; of each method and number "
            "of runs the best strength and scale, others are in results.csv; *: the best of this number of runs; "
            f"{self.results['left_out']} answers with too few runs are left out"
        )
        columns = ["runs", "method", "strength", "scale", "LDS", "best"]
        out = TextTable(title, columns, caption, important=["LDS", "best"])
        best, rows = self.results["best"], self.results["candidates"]
        for count, method in itertools.product(self.ablations, [method.name for method in self.methods]):
            row = best_candidate([one for one in rows if one["method"] == method], count)
            strength = "" if row["strength"] is None else f"{row['strength']:g}"
            scale = "" if row["strength"] is None else "fitted" if row["scale"] is None else f"{row['scale']:.3g}"
            lds = Estimate.of(row["lds"]).forms(3, 2, leading_zero=False)
            out.add_row(str(count), method, strength, scale, lds, "*" if row == best[str(count)] else "")
        return out

    def plots(self) -> "dict[str, Figure]":
        """None: the table says all."""
        return {}


def candidate_scores(
    prior: Float[Tensor, "token source"], answer: AnswerEffects, candidate: Candidate
) -> Float[Tensor, "source"]:
    """Scores of an answer's sources by a prior, and by the ridge around it on the first runs.

    Args:
        prior: Scores of the method alone.
        answer: Its runs.
        candidate: Number of runs, and the ridge's settings; without runs the prior alone.

    """
    if not candidate.ablations or candidate.strength is None:
        return prior.sum(dim=0)
    masks, log_probs = _whole_and(answer, candidate.ablations)
    return corrected(prior, masks, log_probs, candidate.strength, candidate.scale).sum(dim=0)


def _whole_and(answer: AnswerEffects, count: int) -> tuple[Tensor, Tensor]:
    """Masks and log-probabilities of the answer with all sources, and of its first runs."""
    masks = torch.cat([torch.ones(1, answer.masks.shape[1], dtype=torch.bool), answer.masks[:count]])
    return masks, torch.cat([answer.record.log_probs[None], answer.run_log_probs[:count]])


def _slope(prior: Float[Tensor, "token source"], answer: AnswerEffects, most: int) -> float:
    """What a score of 1 is worth in log-probability, by the first runs of an answer; those of the LDS are not used."""
    masks, log_probs = _whole_and(answer, most)
    return nonnegative_slope(masks.double() @ prior.double().sum(dim=0), log_probs.double().sum(dim=1))


def best_candidate(rows: Sequence[dict[str, Any]], ablations: int) -> dict[str, Any]:
    """The candidate of highest mean LDS among those of a number of runs; the first of equal ones.

    >>> rows = [{"ablations": 4, "strength": s, "lds": {"value": v}} for s, v in ((0.1, 0.5), (1.0, 0.7), (10.0, 0.6))]
    >>> best_candidate(rows, 4)["strength"]
    1.0

    """
    return max((row for row in rows if row["ablations"] == ablations), key=lambda row: row["lds"]["value"])

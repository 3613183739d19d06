"""Claim 3 on a score store: does the hidden state predict the heads of k steps later? (Figs. 4 and 8, A.4)."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from lightning import LightningModule
from numpy.typing import NDArray
from rich.table import Table

from datamodules import Pass, ResampledSequences, Rows
from extract.errors import UserError
from probe.experiments.correlation.cca import Canonical, JointMoments, canonical, correlations_on
from probe.experiments.correlation.moments import PairedMoments
from probe.experiments.correlation.plots import plot_correlations
from probe.metrics import jackknife

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PAPER = {
    "copy_paste": (0.965, 0.931, 0.915, 0.835, 0.816, 0.805, 0.792, 0.776, 0.753, 0.742, 0.743),
    "reasoning": (0.856, 0.835, 0.819, 0.804, 0.795, 0.781, 0.765, 0.751, 0.738, 0.724, 0.712),
}
"""Component 1 for k = 0…10: NIAH, HotpotQA."""
FIGURES = ("component_1", "top_10_mean", "top_50_mean")
KINDS = ("in_sample", "held_out", "null_shifted", "null_step")
Moments = list[JointMoments | None]
Triple = NDArray[np.float64]


def summary(correlations: Float[NDArray[np.float64], "component"]) -> Triple:
    """Component 1, mean of the first 10, mean of the first 50, or of as many as there are.

    A component that never moves on the evaluation rows predicts nothing there, and counts 0.
    """
    known = np.nan_to_num(correlations)
    return np.array([known[0], known[:10].mean(), known[:50].mean()])


class Correlation(LightningModule):
    """CCA of hidden states and the scores of k steps later, fitted on training samples, evaluated on others.

    Every figure follows from moments: one pass over the training samples gives the fit, one over the evaluation samples
    the correlations there, one for each draw of a null the correlations that are left without any relation, and one
    over the groups the jackknife's intervals.

    Args:
        in_features, num_heads: Linked from the store.
        offsets: Largest k (A.4: 10).
        components: Most canonical components (A.4: 50); fewer where a side has fewer, which is then said.
        hidden_variance, score_variance: Shares that PCA keeps (A.4: 0.95, 0.99).

    """

    experiment = "correlation"

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        offsets: int = 10,
        components: int = 50,
        hidden_variance: float = 0.95,
        score_variance: float = 0.99,
    ) -> None:
        super().__init__()
        self.in_features, self.num_heads = in_features, num_heads
        self.offsets, self.components = offsets, components
        self.variances = (hidden_variance, score_variance)
        self.results: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Check settings and data before anything is read."""
        del stage
        if not isinstance(getattr(self.trainer, "datamodule", None), ResampledSequences):
            raise UserError("correlation is measured on datamodules.ResampledSequences: set data.class_path to it")
        if self.offsets < 0 or self.components < 1 or not all(0 < share <= 1 for share in self.variances):
            raise UserError(
                f"model: offsets {self.offsets} ≥ 0, components {self.components} ≥ 1 and variances "
                f"{self.variances} within 0 and 1 are wanted"
            )
        self._passes = self._data.passes()
        self._moments = PairedMoments(self.in_features, self.num_heads, self.offsets, *self._data.centres())
        self._whole: dict[str, Moments] = {}
        self._fits: list[Canonical | None] = []
        self._found: dict[str, list[Any]] = defaultdict(list)

    @property
    def _data(self) -> ResampledSequences:
        data: ResampledSequences = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def test_step(self, batch: Rows, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the moments of its pass; every process has one at least, so all meet where a pass ends."""
        if batch_idx == 0 and dataloader_idx > 0:
            self._end_pass(self._passes[dataloader_idx - 1])
        self._moments.to(self.device).update(batch.hidden, batch.scores, batch.sample)

    def on_test_epoch_end(self) -> None:
        """The last pass, then every figure with its interval."""
        self._end_pass(self._passes[-1])
        data = self._data
        self.results = {
            "store": data.test_store.fingerprint,
            "llm": data.identity.as_dict(),
            "target": data.target,
            "evaluation": data.test_path or data.evaluation,
            "split": data.split_record(),
            "permutations": data.permutations,
            "groups": data.groups,
            "seed": data.resampling_seed,
            "samples": {part: self._samples(part) for part in ("train", "evaluation")},
            "hidden_variance": self.variances[0],
            "score_variance": self.variances[1],
            "paper_component_1": dict(enumerate(PAPER[data.target])),
            "offsets": [self._offset(k) for k in range(self.offsets + 1)],
        }
        for cell in self.records():
            if cell["value"] is not None:
                self.log(f"{cell['kind']}/{cell['figure']}/k{cell['k']:02d}", cell["value"], sync_dist=True)

    def _samples(self, part: Any) -> int:
        columns, rows = self._data.part_rows(part)
        return len(np.unique(columns.sample[rows]))

    def _end_pass(self, which: Pass) -> None:
        """Turn a pass's moments into what is kept of it, and begin anew."""
        moments: Moments = self._moments.compute()
        self._moments.reset()
        if which.null is not None:
            self._found[f"null_{which.null}"].append([_in_sample(fit) for fit in map(self._fit, moments)])
        elif which.group is None:
            self._whole[which.part] = moments
            if which.part == "train":
                self._fits = [self._fit(part) for part in moments]
            else:
                pairs = list(zip(self._fits, moments, strict=True))
                self._found["in_sample"] = [_in_sample(fit) for fit in self._fits]
                self._found["held_out"] = [_held_out(fit, part) for fit, part in pairs]
        else:
            self._leave_out(which, moments)

    def _fit(self, moments: JointMoments | None) -> Canonical | None:
        return None if moments is None else canonical(moments, self.components, *self.variances)

    def _leave_out(self, which: Pass, moments: Moments) -> None:
        """The figures without this group's training samples, and then, on the same fit, without its evaluation ones."""
        rest = [
            whole if part is None or whole is None else whole.without(part)
            for whole, part in zip(self._whole[which.part], moments, strict=True)
        ]
        if which.part == "train":
            self._left = [self._fit(part) for part in rest]
            self._found["in_sample_left_out"].append([_in_sample(fit) for fit in self._left])
        else:
            figures = [_held_out(fit, part) for fit, part in zip(self._left, rest, strict=True)]
            self._found["held_out_left_out"].append(figures)

    def _offset(self, k: int) -> dict[str, Any]:
        """Everything about one k."""
        fit, sides = self._fits[k], {name: self._whole[name][k] for name in ("train", "evaluation")}
        pairs = {name: 0 if side is None else side.count for name, side in sides.items()}
        known = fit is not None and len(fit.correlations) > 0
        return {
            "k": k,
            "pairs": pairs,
            "components": len(fit.correlations) if fit is not None else 0,
            "hidden_kept": fit.x_kept if fit is not None else 0,
            "scores_kept": fit.y_kept if fit is not None else 0,
            "correlations": fit.correlations.tolist() if fit is not None else [],
            **{kind: self._cells(kind, k) for kind in KINDS if known},
        }

    def _cells(self, kind: str, k: int) -> dict[str, dict[str, float | None]]:
        """Value and bounds of each figure: a jackknife interval, or the least and the largest draw of a null."""
        if kind.startswith("null"):
            draws = np.array([draw[k] for draw in self._found[kind]])
            if not len(draws):
                return {}
            value, low, high = draws.mean(axis=0), draws.min(axis=0), draws.max(axis=0)
        else:
            value = self._found[kind][k]
            left_out = np.array([group[k] for group in self._found[f"{kind}_left_out"]])
            low, high = jackknife(value, left_out) if len(left_out) else (np.full(3, np.nan),) * 2
        return {
            name: {"value": _plain(value[i]), "low": _plain(low[i]), "high": _plain(high[i])}
            for i, name in enumerate(FIGURES)
        }

    def records(self) -> list[dict[str, Any]]:
        """One row for each k, kind and figure."""
        return [
            {
                **{"k": offset["k"], "kind": kind, "figure": name, **cell},
                "components": offset["components"],
                **{f"{part}_pairs": count for part, count in offset["pairs"].items()},
            }
            for offset in self.results["offsets"]
            for kind in KINDS
            for name, cell in offset.get(kind, {}).items()
        ]

    def table(self) -> Table:
        """Component 1 and the means of all kinds at each k, beside the paper."""
        found = self.results
        samples = found["samples"]
        title = f"Canonical correlations of hidden state and the scores of k steps later ({found['target']})"
        caption = (
            f"fit on {samples['train']} training samples, held out: {samples['evaluation']} ({found['evaluation']}); "
            f"[95 % jackknife interval, {found['groups']} groups of samples]; nulls: the scores of another sample, "
            f"from a random step on and at the same step, mean of {found['permutations']} draws; "
            f"{self._shortfall()}paper: llama3.1-8b"
        )
        out = Table(title=title, caption=caption)
        for header in ("k", "", "in sample", "held out", "shifted", "same step", "paper"):
            out.add_column(header, justify="right" if header else "left")
        for offset in found["offsets"]:
            for name in FIGURES:
                first = name == FIGURES[0]
                published = f"{PAPER[found['target']][offset['k']]:.3f}" if first and offset["k"] <= 10 else ""
                cells = [_cell(offset.get(kind, {}).get(name), bounds=not kind.startswith("null")) for kind in KINDS]
                label = name.replace("_", " ").removesuffix(" mean")
                out.add_row(
                    str(offset["k"]) if first else "", label, *cells, published, end_section=name == FIGURES[-1]
                )
        return out

    def _shortfall(self) -> str:
        """Where fewer components exist than were asked for."""
        fewest = min(offset["components"] for offset in self.results["offsets"])
        if fewest >= self.components:
            return ""
        return f"only {fewest} components exist where fewest do, not {self.components}: means are of what there is; "

    def plots(self) -> "dict[str, Figure]":
        """Fig. 4 / 8 with held-out samples and nulls beside the fit."""
        return {"correlation_over_offsets": plot_correlations(self.results, KINDS, FIGURES)}


def _in_sample(fit: Canonical | None) -> Triple:
    return np.full(3, np.nan) if fit is None or not len(fit.correlations) else summary(fit.correlations)


def _held_out(fit: Canonical | None, moments: JointMoments | None) -> Triple:
    if fit is None or moments is None or not len(fit.correlations):
        return np.full(3, np.nan)
    return summary(correlations_on(fit, moments))


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _cell(cell: dict[str, float | None] | None, bounds: bool) -> str:
    if cell is None or cell["value"] is None:
        return "–"
    if not bounds or cell["low"] is None:
        return f"{cell['value']:.3f}"
    return f"{cell['value']:.3f} [{cell['low']:.2f}, {cell['high']:.2f}]"

"""Samples of score stores for the explorer: scores, argmax positions and predictions of all heads at all steps."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from datamodules import Split
from extract.errors import UserError
from extract.heads import top_k_mask
from extract.llm import LLM
from extract.prompts import token_texts
from extract.scores import REASONING_THRESHOLD, Target, is_dynamic
from extract.store import ScoreStore, Steps
from extract.utils import say
from probe.heads import store_ranking
from probe.models import Probe, SeveralProbes, load
from probe.report.blobs import pack, quantise

NO_POSITION = np.iinfo(np.uint16).max
"""In the page, the argmax position of a head where none was recorded."""
METRICS = ("accuracy", "rouge_l", "em", "f1", "answered", "contains", "em_last", "f1_last", "em_forced", "f1_forced")
"""Metrics of answers that are shown where a sample has them."""


@dataclass(frozen=True)
class Explorer:
    """Settings of the explorer.

    Attributes:
        samples: Most samples of a store.
        static_top: Heads of the static set (Section 3: 20).
        predicted_top: Heads of highest predicted reasoning score that count as predicted at a step (Section 5: 5).
        threshold: Reasoning scores from here on make a head dynamic.

    """

    samples: int = 8
    static_top: int = 20
    predicted_top: int = 5
    threshold: float = REASONING_THRESHOLD

    def checked(self) -> "Explorer":
        """Itself.

        Raises:
            UserError: a number below 1, or a threshold that is no reasoning score.

        """
        if min(self.samples, self.static_top, self.predicted_top) < 1 or not 0 < self.threshold <= 1:
            raise UserError(
                f"report: samples {self.samples}, static_top {self.static_top} and predicted_top {self.predicted_top} "
                f"must be at least 1, and threshold {self.threshold} above 0 and at most 1"
            )
        return self


@dataclass(frozen=True)
class Packed:
    """A sample in the page.

    Attributes:
        summary: Its entry in the list of samples.
        data: Its blob.

    """

    summary: dict[str, Any]
    data: str


def explore(store: ScoreStore, probes: Sequence[Probe], explorer: Explorer) -> tuple[dict[str, Any], list[Packed]]:
    """A description of a score store for the page, and some of its samples.

    Args:
        store: The store; samples that no probe was trained on are preferred.
        probes: Their predictions are shown beside the scores; of probes of the same target the last counts.
        explorer: What to show.

    """
    target: Target = "reasoning" if store.manifest["task"].get("class") != "NIAH" else "copy_paste"
    identity = store.identity
    known = {probe.target: probe for probe in fitting_probes(store, probes)}
    tokenizer = _tokenizer(store)
    numbers, held_out = _choose(store, list(known.values()), explorer.samples)
    description = {
        "name": store.path.name,
        "fingerprint": store.fingerprint,
        "llm": str(identity),
        "layers": identity.layers,
        "heads": identity.heads,
        "target": target,
        "threshold": explorer.threshold,
        "static": _static(store, target, explorer.static_top),
        "predicts": {name: _criterion(probe, explorer.predicted_top) for name, probe in known.items()},
        "held_out": held_out,
    }
    return description, [_pack(store.steps(number), tokenizer, known, explorer) for number in numbers]


def fitting_probes(store: ScoreStore, probes: Sequence[Probe]) -> list[Probe]:
    """Probes that predict the scores of a store; one of its LLM that does not is reported and left out."""
    fitting = []
    for probe in probes:
        if not probe.llm.same_model(store.identity):
            continue
        try:
            probe.check_scores(store.excluded, 0, f"the explorer of {store.path}")
        except UserError as error:
            say(f"a {type(probe).__name__} is left out: {error}", sys.stderr)
        else:
            fitting.append(probe)
    return fitting


def load_probes(paths: Sequence[Path], skipped: list[str]) -> list[Probe]:
    """The probes among checkpoints; other modules, such as probes of later steps, are left out.

    Args:
        paths: Checkpoints and folders of exported probes.
        skipped: Takes a line about each one that cannot be loaded.

    """
    found = []
    for path in paths:
        try:
            found.append(load(path))
        except SeveralProbes:
            continue
        except UserError as error:
            skipped.append(f"{path} is left out: {error}")
    return found


def _tokenizer(store: ScoreStore) -> Any:
    """The tokenizer of the store's LLM, or None where it is not available."""
    try:
        return LLM(store.identity.name).tokenizer
    except UserError:
        return None


def _choose(store: ScoreStore, probes: Sequence[Probe], count: int) -> tuple[list[int], bool]:
    """Numbers of evenly spaced samples, and whether they are held out from the probes or else the training split."""
    ids = store.sample_names(records=True)
    trained_on = {name for probe in probes for name in probe.training_ids}
    units = Split().units(store.scalars("sample")) if not probes and len(ids) > 9 else {}
    training = set(np.concatenate([units["train"], units["val"]]).tolist()) if units else set()
    held_out = sorted(number for number, names in ids.items() if number not in training and not names & trained_on)
    chosen = held_out or sorted(ids)
    places = np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)
    return [chosen[place] for place in np.unique(places)], bool(held_out)


def _static(store: ScoreStore, target: Target, top: int) -> list[int]:
    """The static set by the store's training samples; empty where the store is too small to be split."""
    try:
        return list(store_ranking(str(store.path), target, Split()).top(top))
    except UserError:
        return []


def _criterion(probe: Probe, top: int) -> dict[str, int | float]:
    """When a head counts as predicted: from a threshold on, or among the top of a step."""
    threshold = getattr(probe, "threshold", None)
    return {"top": top} if threshold is None else {"threshold": float(threshold)}


def _pack(steps: Steps, tokenizer: Any, probes: dict[Target, Probe], explorer: Explorer) -> Packed:
    sample = steps.sample
    prompt, answer = sample.get("prompt", []), steps.tokens.tolist()
    texts = _texts(tokenizer, [*prompt, *answer])
    header = {
        "tokens": texts,
        "prompt": len(prompt),
        "evidence": sample.get("evidence", []),
        **{name: sample.get(name) for name in ("question", "gold", "answer")},
        "metrics": {name: sample[name] for name in METRICS if sample.get(name) is not None},
    }
    reasoning = _flat(steps.reasoning)
    arrays = {
        "scoring_copy_paste": _flat(steps.copy_paste.astype(np.uint8)),
        "scoring_reasoning": is_dynamic(reasoning, "reasoning", explorer.threshold).astype(np.uint8),
        "value_reasoning": quantise(reasoning),
    }
    if steps.argmax is not None:
        recorded = (steps.argmax >= 0) & (steps.argmax < NO_POSITION)
        arrays["argmax"] = _flat(np.where(recorded, steps.argmax, NO_POSITION).astype(np.uint16))
    for target, probe in probes.items():
        predicted = _predicted(probe, steps)
        chosen = _predicted_heads(probe, predicted, explorer.predicted_top)
        arrays[f"predicted_{target}"] = chosen.numpy().astype(np.uint8)
        arrays[f"prediction_{target}"] = quantise(predicted.numpy())
    summary = {
        "sample": sample["sample"],
        "id": sample["id"],
        "steps": len(steps),
        "prompt": len(prompt),
        "question": sample.get("question", ""),
        "right": sample.get("accuracy", sample.get("em")),
    }
    return Packed(summary, pack(header, arrays))


def _texts(tokenizer: Any, ids: list[int]) -> list[str]:
    return token_texts(tokenizer, ids) if tokenizer is not None else [f" #{number}" for number in ids]


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    """[step, layer, head] as [step, head], layer-major."""
    return values.reshape(len(values), -1)


@torch.inference_mode()
def _predicted(probe: Probe, steps: Steps) -> Float[Tensor, "step head"]:
    return probe.predict_scores(torch.from_numpy(np.array(steps.hidden, dtype=np.float32)))


def _predicted_heads(probe: Probe, predicted: Float[Tensor, "step head"], top: int) -> Bool[Tensor, "step head"]:
    """Heads from the classifier's threshold on, or the regressor's top heads of each step."""
    threshold: Tensor | None = getattr(probe, "threshold", None)
    return predicted >= threshold if threshold is not None else top_k_mask(predicted, top)

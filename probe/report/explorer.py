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
from probe.heads import store_ranking
from probe.models import Probe, load
from probe.report.blobs import pack, quantise

NO_POSITION = np.iinfo(np.uint16).max
"""In the page, the argmax position of a head where none was recorded."""
STATIC_TOP = 20
"""Heads of the static set (Section 3)."""
PREDICTED_TOP = 5
"""Heads that a regressor predicts to score at a step (Section 5)."""


@dataclass(frozen=True)
class Packed:
    """A sample in the page.

    Attributes:
        summary: Its entry in the list of samples.
        data: Its blob.

    """

    summary: dict[str, Any]
    data: str


def explore(store: ScoreStore, probes: Sequence[Probe], count: int) -> tuple[dict[str, Any], list[Packed]]:
    """A description of a score store for the page, and some of its samples.

    Args:
        store: The store; samples that no probe was trained on are preferred.
        probes: Their predictions are shown beside the scores; of probes of the same target the last counts.
        count: Most samples.

    """
    target: Target = "reasoning" if store.manifest["task"].get("class") != "NIAH" else "copy_paste"
    identity = store.identity
    known = {probe.target: probe for probe in fitting_probes(store, probes)}
    tokenizer = _tokenizer(store)
    numbers, held_out = _choose(store, list(known.values()), count)
    description = {
        "name": store.path.name,
        "fingerprint": store.fingerprint,
        "llm": str(identity),
        "layers": identity.layers,
        "heads": identity.heads,
        "target": target,
        "threshold": REASONING_THRESHOLD,
        "static": _static(store, target),
        "predicts": {name: _criterion(probe) for name, probe in known.items()},
        "held_out": held_out,
    }
    return description, [_pack(store.steps(number), tokenizer, known) for number in numbers]


def fitting_probes(store: ScoreStore, probes: Sequence[Probe]) -> list[Probe]:
    """Probes that predict the scores of a store; one of its LLM that does not is reported and left out."""
    fitting = []
    for probe in probes:
        if not probe.llm.same_model(store.identity):
            continue
        try:
            probe.check_scores(store.excluded, 0, f"the explorer of {store.path}")
        except UserError as error:
            print(f"a {type(probe).__name__} is left out: {error}", file=sys.stderr)
        else:
            fitting.append(probe)
    return fitting


def load_probes(paths: Sequence[Path]) -> list[Probe]:
    """The probes among checkpoints; other modules, such as probes of later steps, are left out."""
    found = []
    for path in paths:
        try:
            found.append(load(path))
        except UserError:
            continue
    return found


def _tokenizer(store: ScoreStore) -> Any:
    """The tokenizer of the store's LLM, or None where it is not available."""
    try:
        return LLM(store.identity.name).tokenizer
    except UserError:
        return None


def _choose(store: ScoreStore, probes: Sequence[Probe], count: int) -> tuple[list[int], bool]:
    """Numbers of evenly spaced samples, and whether they are held out from the probes or else the training split."""
    table = store.samples()
    ids = dict(zip(table["sample"].to_pylist(), table["id"].to_pylist(), strict=True))
    trained_on = {name for probe in probes for name in probe.training_ids}
    units = Split().units(store.scalars("sample")) if not probes and len(ids) > 9 else {}
    training = {ids[number] for number in np.concatenate([units["train"], units["val"]]).tolist()} if units else set()
    held_out = sorted(number for number, name in ids.items() if name not in trained_on | training)
    chosen = held_out or sorted(ids)
    places = np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)
    return [chosen[place] for place in np.unique(places)], bool(held_out)


def _static(store: ScoreStore, target: Target) -> list[int]:
    """The static set by the store's training samples; empty where the store is too small to be split."""
    try:
        return list(store_ranking(str(store.path), target, Split()).top(STATIC_TOP))
    except UserError:
        return []


def _criterion(probe: Probe) -> dict[str, float]:
    """When a head counts as predicted: from a threshold on, or among the top of a step."""
    threshold = getattr(probe, "threshold", None)
    return {"top": PREDICTED_TOP} if threshold is None else {"threshold": float(threshold)}


def _pack(steps: Steps, tokenizer: Any, probes: dict[str, Probe]) -> Packed:
    sample = steps.sample
    prompt, answer = sample.get("prompt", []), steps.tokens.tolist()
    texts = _texts(tokenizer, [*prompt, *answer])
    header = {
        "tokens": texts,
        "prompt": len(prompt),
        "evidence": sample.get("evidence", []),
        **{name: sample.get(name) for name in ("question", "gold", "answer")},
        "metrics": {name: sample[name] for name in ("accuracy", "rouge_l", "em", "f1") if sample.get(name) is not None},
    }
    reasoning = _flat(steps.reasoning)
    arrays = {
        "scoring_copy_paste": _flat(steps.copy_paste.astype(np.uint8)),
        "scoring_reasoning": is_dynamic(reasoning, "reasoning").astype(np.uint8),
        "value_reasoning": quantise(reasoning),
    }
    if steps.argmax is not None:
        recorded = (steps.argmax >= 0) & (steps.argmax < NO_POSITION)
        arrays["argmax"] = _flat(np.where(recorded, steps.argmax, NO_POSITION).astype(np.uint16))
    for target, probe in probes.items():
        predicted = _predicted(probe, steps)
        arrays[f"predicted_{target}"] = _predicted_heads(probe, predicted).numpy().astype(np.uint8)
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


def _predicted_heads(probe: Probe, predicted: Float[Tensor, "step head"]) -> Bool[Tensor, "step head"]:
    """Heads from the classifier's threshold on, or the regressor's top heads of each step."""
    threshold: Tensor | None = getattr(probe, "threshold", None)
    return predicted >= threshold if threshold is not None else top_k_mask(predicted, PREDICTED_TOP)

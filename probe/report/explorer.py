"""Samples of score stores for the explorer: what every head did at every step, and what a probe predicted."""

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
from extract.llm import LLM
from extract.prompts import token_texts
from extract.scores import REASONING_THRESHOLD, Target, is_dynamic
from extract.store import ScoreStore, Steps
from probe.heads import store_ranking
from probe.models import Probe, load
from probe.report.blobs import pack, quantise

NOWHERE = np.iinfo(np.uint16).max
STATIC_TOP = 20
PREDICTED_TOP = 5
"""Heads that a regressor's prediction marks at a step (Section 5)."""


@dataclass(frozen=True)
class Packed:
    """A sample in the page: its line in the picker, and its blob."""

    line: dict[str, Any]
    data: str


def explore(store: ScoreStore, probes: Sequence[Probe], count: int) -> tuple[dict[str, Any], list[Packed]]:
    """What the page knows of a store, and its samples.

    Args:
        store: Where the samples come from: ones that no probe has seen, if there are any.
        probes: Their predictions are shown beside the true heads, one for each score that they predict.
        count: Samples, at most.

    """
    target: Target = "reasoning" if store.manifest["task"].get("class") != "NIAH" else "copy_paste"
    identity = store.identity
    known = {probe.target: probe for probe in probes if probe.llm.same_model(identity)}
    tokenizer = _tokenizer(store)
    numbers, unseen = _choose(store, list(known.values()), count)
    about = {
        "name": store.path.name,
        "fingerprint": store.fingerprint,
        "llm": str(identity),
        "layers": identity.layers,
        "heads": identity.heads,
        "target": target,
        "threshold": REASONING_THRESHOLD,
        "static": _static(store, target),
        "predicts": {name: _criterion(probe) for name, probe in known.items()},
        "unseen": unseen,
    }
    return about, [_pack(store.steps(number), tokenizer, known) for number in numbers]


def load_probes(paths: Sequence[Path]) -> list[Probe]:
    """The probes among checkpoints; other modules, such as probes of later steps, have nothing for the explorer."""
    found = []
    for path in paths:
        try:
            found.append(load(path))
        except UserError:
            continue
    return found


def _tokenizer(store: ScoreStore) -> Any:
    """The tokenizer of the store's LLM, or None where that is not at hand."""
    try:
        return LLM(store.identity.name).tokenizer
    except UserError:
        return None


def _choose(store: ScoreStore, probes: Sequence[Probe], count: int) -> tuple[list[int], bool]:
    """Numbers of evenly spread samples, and whether no probe (or without any, no training split) has seen them."""
    table = store.samples()
    ids = dict(zip(table["sample"].to_pylist(), table["id"].to_pylist(), strict=True))
    seen = {name for probe in probes for name in probe.training_ids}
    units = Split().units(store.scalars("sample")) if not probes and len(ids) > 9 else {}
    trained = {ids[number] for number in np.concatenate([units["train"], units["val"]]).tolist()} if units else set()
    held_out = sorted(number for number, name in ids.items() if name not in seen | trained)
    chosen = held_out or sorted(ids)
    places = np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)
    return [chosen[place] for place in np.unique(places)], bool(held_out)


def _static(store: ScoreStore, target: Target) -> list[int]:
    """The top heads of the store's training samples; none where the store is too small to be divided."""
    try:
        return list(store_ranking(str(store.path), target, Split()).top(STATIC_TOP))
    except UserError:
        return []


def _criterion(probe: Probe) -> dict[str, float]:
    """When a prediction counts: from a threshold on, or among a step's first."""
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
        looks = np.where((steps.argmax < 0) | (steps.argmax >= NOWHERE), NOWHERE, steps.argmax)
        arrays["looks"] = _flat(looks.astype(np.uint16))
    for target, probe in probes.items():
        predicted = _predicted(probe, steps)
        arrays[f"predicted_{target}"] = _marked(probe, predicted).numpy().astype(np.uint8)
        arrays[f"prediction_{target}"] = quantise(predicted.numpy())
    line = {
        "sample": sample["sample"],
        "id": sample["id"],
        "steps": len(steps),
        "prompt": len(prompt),
        "question": sample.get("question", ""),
        "right": sample.get("accuracy", sample.get("em")),
    }
    return Packed(line, pack(header, arrays))


def _texts(tokenizer: Any, ids: list[int]) -> list[str]:
    return token_texts(tokenizer, ids) if tokenizer is not None else [f" #{number}" for number in ids]


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    """[step, layer, head] as [step, head], layer-major."""
    return values.reshape(len(values), -1)


@torch.inference_mode()
def _predicted(probe: Probe, steps: Steps) -> Float[Tensor, "step head"]:
    return probe.predict_scores(torch.from_numpy(np.array(steps.hidden, dtype=np.float32)))


def _marked(probe: Probe, predicted: Float[Tensor, "step head"]) -> Bool[Tensor, "step head"]:
    """The heads that a prediction names: those above the classifier's threshold, or the regressor's best of a step."""
    threshold: Tensor | None = getattr(probe, "threshold", None)
    if threshold is not None:
        return predicted >= threshold
    best = predicted.topk(min(PREDICTED_TOP, predicted.shape[1]), dim=1).indices
    return torch.zeros_like(predicted, dtype=torch.bool).scatter_(1, best, True)

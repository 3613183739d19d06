"""Results as `lightning test` records them, small and made up, one for each exhibit of the report."""

from dataclasses import asdict
from typing import Any

from probe.attribution.experiment import COSTS
from probe.attribution.experiment import METRICS as ATTRIBUTION
from probe.attribution.grounding import BASELINES as UNTRACED
from probe.attribution.grounding import GROUPS, LEVELS, SCORES
from probe.diagnosis import CAUSES, INTERVENTIONS
from probe.diagnosis.experiment import CLAIMS
from probe.experiments.correlation import KINDS
from probe.experiments.correlation import METRICS as CORRELATIONS
from probe.experiments.dynamism import METRICS as DYNAMISM
from probe.experiments.dynamism import SIZE_METRICS
from probe.results import BASELINES, PREDICTORS, SCHEMA, TABLE_1, TABLE_4, WAKE_UP_METRICS

LLM = {"name": "toy", "weights": "sha256:" + "0" * 64, "layers": 2, "heads": 3, "hidden_size": 8, "dtype": "float32"}
SPLIT = {"by": "sample", "fractions": [0.7, 0.2, 0.1], "seed": 0, "limit": None, "sizes": {"train": 7}, "sha256": "s"}
HEAD = {"llm": LLM, "store": "f" * 64, "split": SPLIT, "seed": 3}


def cell(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 20}


def dynamism() -> dict[str, Any]:
    metrics = {name: cell(0.5 + place / 100) for place, name in enumerate(DYNAMISM)}
    sizes = {f"{name}_top_{size}": cell(size / 10) for name in SIZE_METRICS for size in (2, 4)}
    return {
        **{"command": "lightning test -c configs/dynamism.yaml", **HEAD, "target": "copy_paste"},
        **{"dynamic_heads": "copy_paste", "static_heads": [1, 4], "static_source": "training samples of s"},
        **{"samples": 9, "steps": 120, "metrics": {"dynamic": metrics, "shuffled": metrics}},
        **{"heads": 6, "static_sizes": [2, 4], "static_size_metrics": {"dynamic": sizes, "shuffled": sizes}},
        "paper": TABLE_1,
        "frequency": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
        "example": {"sample": 4, "tokens": ["<script>", "\n"], "heads": [5, 1], "scores": [[1.0, 0.0], [None, 1.0]]},
    }


def ablation(target: str, sweep: bool) -> dict[str, Any]:
    names = ["none", *(["dynamic top 2", "dynamic top 4"] if sweep else ["dynamic"]), "static 5"]
    metrics = ("accuracy", "rouge_l") if target == "copy_paste" else ("em", "f1")
    heads = ("ablated", "dynamic", "compensated", "compensated_static", "steps")
    estimates = {name: {key: cell(0.3) for key in (*metrics, *heads)} for name in names}
    pairs = [
        {
            "first": a,
            "second": b,
            "metric": metric,
            **cell(0.2),
            "difference": 0.2,
            "more": 4,
            "less": 1,
            "p": 0.375,
            "p_holm": 0.75,
        }
        for metric in metrics
        for place, a in enumerate(names)
        for b in names[place + 1 :]
    ]
    cells = {name: [{"depth": 1, "length": 0, **cell(0.25)}] for name in names}
    return {
        **{"command": f"lightning test -c configs/ablation/{target}_{sweep}.yaml", **HEAD},
        "store": {"store": "s", "fingerprint": "f" * 64, "split": SPLIT},
        **{"conditions": {name: {"name": name} for name in names}, "dynamic_heads": {"target": target}},
        **{"operator": "zero", "keep": "clean", "prompts": 20, "baseline_correct": 15},
        "matched_heads": {"rule": "ablated", "average": 1.54, "steps_by_heads": [0.5, 0.25, 0.25]},
        "metrics": {"all": estimates, "baseline_correct": estimates},
        "pairs": {"all": pairs, "baseline_correct": pairs},
        "heatmaps": {"lengths": [100.0, 200.0], "depths": [10.0, 90.0], "metrics": dict.fromkeys(metrics, cells)},
    }


def correlation(target: str) -> dict[str, Any]:
    offsets = [
        {
            **{"k": k, "pairs": {"train": 90, "evaluation": 30}, "components": 5},
            **{kind: {name: cell(0.9 - k / 10) for name in CORRELATIONS} for kind in KINDS},
        }
        for k in range(3)
    ]
    return {
        **{"command": f"lightning test -c configs/correlation.yaml {target}", **HEAD, "target": target},
        **{"groups": 10, "permutations": 5, "samples": {"train": 7, "evaluation": 3}},
        "paper_component_1": {"0": 0.965, "1": 0.931, "2": 0.915},
        "offsets": offsets,
    }


def classifier() -> dict[str, Any]:
    names = ("f1", "precision", "recall", "auprc")
    metrics = {**dict.fromkeys(names, 0.8123), "intervals": dict.fromkeys(names, (0.79, 0.83)), "threshold": 0.5}
    kinds = [kind for kind in BASELINES if kind != "ridge"]
    return {
        **{"command": "lightning test -c configs/probe.yaml", **HEAD, "test_store": "f" * 64, "rows": 90},
        **{"samples": 5, "checkpoint": "c", "probe": metrics, **dict.fromkeys(kinds, metrics)},
        "differences": {kind: {name: cell(0.1) for name in names} for kind in kinds},
    }


def regressor() -> dict[str, Any]:
    names = ("mse", "mae", "r2_variance_weighted", "r2_flattened", "top_overlap", "ndcg", "rank_correlation")
    metrics = {**dict.fromkeys(names, 0.4), "intervals": dict.fromkeys(names, (0.3, 0.5))}
    return {
        **{"command": "lightning test -c configs/regressor.yaml", **HEAD, "test_store": "f" * 64, "rows": 90},
        **{"samples": 5, "top": 5, "probe": metrics, **dict.fromkeys(BASELINES, metrics)},
        "differences": {kind: {name: cell(0.1) for name in names} for kind in BASELINES},
    }


def offset_probes() -> dict[str, Any]:
    def offset(k: int) -> dict[str, Any]:
        cells = {name: cell(0.7) for name in WAKE_UP_METRICS}
        gaps = {kind: {name: cell(0.1) for name in cells} for kind in PREDICTORS[1:]}
        return {"k": k, "rows": 50, **dict.fromkeys(PREDICTORS, cells), "differences": gaps}

    return {
        "command": "lightning test -c configs/offset_probes.yaml",
        **HEAD,
        "target": "copy_paste",
        "samples": 5,
        "offsets": [offset(k) for k in range(3)],
        "wake_ups": [{**offset(k), "pairs": 200, "events": 9} for k in (1, 2)],
    }


def rag() -> dict[str, Any]:
    names = (
        "em",
        "f1",
        "recall",
        "first_recall",
        "first_chance",
        "precision",
        "visible",
        "retrievals",
        "forward_tokens",
    )
    bare = {**{name: cell(0.2) for name in names}, "recall": {"value": float("nan"), "low": 0, "high": 0, "n": 0}}
    return {
        **{"command": "lightning test -c configs/rag.yaml", "llm": LLM, "questions": 20, "mask": "packed"},
        "probe": {"llm": LLM, "store": "f" * 64, "target": "reasoning", "split": SPLIT},
        "strategies": {"dynamic": {name: cell(0.4) for name in names}, "w/o RAG": bare},
        "strategy_settings": {"dynamic": {}, "w/o RAG": {}},
        "pairs": [
            {"first": "dynamic", "second": "w/o RAG", "metric": "f1", "difference": 0.2, "low": 0.1, "high": 0.3}
        ],
        "paper": TABLE_4,
    }


def attribution() -> dict[str, Any]:
    methods = ("copying heads", "words in common")
    names = (*ATTRIBUTION, "drop_1", "drop_3", *COSTS)
    estimates = {method: {name: cell(0.4) for name in names} for method in methods}
    pairs = [
        {
            **{"first": methods[0], "second": methods[1], "metric": name, **cell(0.1), "difference": 0.1},
            **{"more": 6, "less": 3, "p": 0.25, "p_holm": 0.5},
        }
        for name in ATTRIBUTION
    ]
    return {
        **{"command": "lightning test -c configs/attribution.yaml", "llm": LLM, "seed": 3, "resamples": 1000},
        **{"answers": 20, "correct": 12, "given_answers": False, "unit": "sentence", "empty_answers": 0},
        "evaluation": {"held_out": 32, "top": [1, 3], "cited": 2, "seed": 0},
        **{"metrics": {"all": estimates, "correct": estimates}, "pairs": {"all": pairs, "correct": pairs}},
    }


def grounding() -> dict[str, Any]:
    names = (*SCORES, *UNTRACED)
    areas = {group: {level: {name: cell(0.8) for name in names} for level in LEVELS} for group in GROUPS}
    pairs = [
        {"first": one, "second": other, **cell(0.1), "difference": 0.1, "p": 0.25, "p_holm": 0.5}
        for one in SCORES
        for other in UNTRACED
    ]
    counts = {"positive": 20, "negative": 12, "questions": 14}
    threshold = {"threshold": 0.3, "recall_grounded": cell(0.9), "recall_others": cell(0.7)}
    return {
        **{"command": "lightning test -c configs/grounding.yaml", "llm": LLM, "seed": 3, "resamples": 1000},
        **{"questions": 20, "training_questions": 6, "auroc": areas, "default_threshold": threshold},
        "pairs": {group: dict.fromkeys(LEVELS, pairs) for group in GROUPS},
        "classes": {group: dict.fromkeys(LEVELS, counts) for group in GROUPS},
        "thresholds": dict.fromkeys(names, threshold),
    }


def diagnosis() -> dict[str, Any]:
    outcomes = {name: {kind: cell(0.4) for kind in ("rescued", "changed", "exact")} for name in INTERVENTIONS}
    empty = {"value": None, "low": None, "high": None, "n": 0}
    claim = {**{"rate": cell(0.6), "rest": cell(0.3), "random": 0.4, "random_low": 0.3, "random_high": 0.5}, "p": 0.01}
    untested = {**dict.fromkeys(("random", "random_low", "random_high", "p", "p_holm")), "rate": empty, "rest": empty}
    claims = [{**asdict(one), **claim, "p_holm": 0.02, "supported": one.more} for one in CLAIMS[:-1]]
    auroc = {name: cell(0.7) for name in ("heads", "output entropy")}
    difference = {"difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.03}
    counted = {"tokens": 4, "answers": 40, "failed": 24}
    return {
        **{"command": "lightning test -c configs/diagnosis.yaml", "llm": LLM, "seed": 3, "resamples": 1000},
        **{"answers": 40, "solved": 16, "failed": 24, "held_out_failures": 16, "thresholds": None},
        "causes": {"all": dict.fromkeys(CAUSES, 3), "held_out": dict.fromkeys(CAUSES, 2)},
        "shares": dict.fromkeys(CAUSES, cell(0.125)),
        "interventions": dict.fromkeys([*CAUSES, "all"], outcomes),
        "claims": [*claims, {**asdict(CLAIMS[-1]), **untested, "supported": None}],
        "prediction": {**counted, "auroc": auroc, "differences": {"output entropy": difference}},
        "reported": {
            **{"held_out": {"follows": 2, "undecided": 10}, "merged": ["context", "undecided"]},
            "interventions": dict.fromkeys(("follows", "undecided"), outcomes),
        },
        "expected_heads": [
            {**{"probe": 0, "steps": 1, "share": "acted", "p": 0.01, "p_holm": 0.02}, "failed": cell(0.3)}
            | {"solved": cell(0.6)}
        ],
    }


_SHOWN = {
    "dynamism": dynamism(),
    "ablation": ablation("copy_paste", sweep=False),
    "ablation-k": ablation("copy_paste", sweep=True),
    "correlation": correlation("copy_paste"),
    "classifier": classifier(),
    "regressor": regressor(),
    "rag": rag(),
    "ablation-qa": ablation("reasoning", sweep=False),
    "ablation-qa-k": ablation("reasoning", sweep=True),
    "correlation-qa": correlation("reasoning"),
    "offset_probes": offset_probes(),
    "attribution": attribution(),
    "grounding": grounding(),
    "diagnosis": diagnosis(),
}
RECORDS = {name: {"experiment": name.partition("-")[0], "schema": SCHEMA, **record} for name, record in _SHOWN.items()}
"""By the exhibit that shows it."""


def traces(questions: int) -> list[dict[str, Any]]:
    """Lines of `traces.jsonl`: two strategies a question."""
    words = [
        {"text": "<b>Ada", "span": [0, 6], "value": 1.4, "content": True},
        {"text": "lived", "span": [7, 12], "value": 0.2, "content": True},
        {"text": "in", "span": [13, 15], "value": 0.0, "content": False},
    ]
    window = {"start": 20, "end": 25, "text": " <script>Ada lived in Oslo."}
    fired = {"draft": "<b>Ada lived in", "words": words, "hit": 0, "kept": "", "heads": [[1, 2]], "windows": [window]}
    quiet = {"draft": "So the answer is Oslo.", "words": words[1:], "hit": None, "kept": "Ada lived in Oslo."}
    rounds = [{**fired, "rewrite": "Ada lived in Oslo."}, {**quiet, "heads": None, "windows": None, "rewrite": None}]
    return [
        {
            **{"sample": number, "id": f"q{number}", "question": f"Where did Ada {number} live?", "gold": "Oslo"},
            **{"strategy": strategy, "context": [20, 30], "evidence": [[22, 27]], "rounds": rounds, "stop": "answered"},
            **{"text": "Ada lived in Oslo.", "metrics": {"em": 1.0, "f1": 1.0, "retrievals": 1}},
        }
        for number in range(questions)
        for strategy in ("dynamic", "w/o RAG")
    ]

"""Published results of "Retrieval Heads are Dynamic" (arXiv 2602.11162): Tables 1 to 4, component 1 of Figs. 4, 8."""

from collections.abc import Mapping

from probe.results.text_table import TextTable

PAPER_MODEL = "llama3.1-8b"
"""The model that the paper reports first, and that results are shown beside."""
Published = Mapping[str, Mapping[str, float]]
"""Values by model and metric."""


def _rows(metrics: str, rows: dict[str, str]) -> dict[str, dict[str, float]]:
    names = metrics.split()
    return {model: dict(zip(names, map(float, row.split()), strict=True)) for model, row in rows.items()}


TABLE_1: Published = _rows(
    "jaccard_static jaccard_adjacent entropy heads_per_step heads_per_step_sd heads_ever heads",
    {
        "llama3.1-8b": "0.3512 0.2793 3.8154 12.97 7.69 238 1024",
        "llama3.2-3b": "0.3126 0.3188 3.0083 9.69 6.18 149 672",
        "qwen3-8b": "0.4611 0.3668 4.1038 20.18 10.43 415 1152",
        "llama2-13b": "0.2077 0.4979 4.8973 6.20 5.49 172 1600",
        "phi4-mini": "0.1845 0.5056 3.5532 6.13 7.09 176 768",
    },
)
"""Dynamism: Jaccard index with the static top 20, Jaccard index of adjacent steps, entropy over heads in nats; and the
columns that the second version (ACL 2026) adds: dynamic heads per step, mean and standard deviation, heads that are
ever dynamic, all heads."""
TABLE_2: Published = _rows(
    "f1 precision recall auprc",
    {
        "llama3.1-8b": "0.8349 0.8344 0.8353 0.9173",
        "llama3.2-3b": "0.8456 0.8564 0.8351 0.9289",
        "qwen3-8b": "0.8566 0.8780 0.8362 0.9339",
        "llama2-13b": "0.8336 0.8455 0.8220 0.9183",
        "phi4-mini": "0.8038 0.8219 0.7865 0.8862",
    },
)
"""The classifier on needle prompts."""
TABLE_3: Published = _rows(
    "mse mae r2",
    {
        "llama3.1-8b": "0.0023 0.0177 0.8120",
        "llama3.2-3b": "0.0036 0.0247 0.8015",
        "qwen3-8b": "0.0050 0.0255 0.7200",
        "llama2-13b": "0.0009 0.0121 0.7669",
        "phi4-mini": "0.0014 0.0109 0.7333",
    },
)
"""The regressor on HotpotQA."""
STRATEGIES = ("dynamic", "static", "dynamic random", "fixed random", "w/o RAG")
"""The columns of Table 4."""


def _pairs(row: str) -> dict[str, tuple[float, float]]:
    values = [float(value) for value in row.split()]
    return dict(zip(STRATEGIES, zip(values[::2], values[1::2], strict=True), strict=True))


TABLE_4 = {
    model: _pairs(row)
    for model, row in {
        "llama3.1-8b": "0.456 0.5586 0.398 0.5098 0.272 0.3670 0.272 0.3763 0.252 0.3257",
        "llama3.2-3b": "0.384 0.4993 0.428 0.5386 0.224 0.3143 0.226 0.3051 0.184 0.2439",
        "qwen3-8b": "0.286 0.3580 0.278 0.3429 0.210 0.2804 0.210 0.2804 0.220 0.2961",
        "llama2-13b": "0.284 0.3838 0.278 0.3789 0.276 0.3762 0.272 0.3751 0.192 0.2750",
        "phi4-mini": "0.202 0.2690 0.186 0.2505 0.082 0.1090 0.086 0.1111 0.172 0.2331",
    }.items()
}
"""Masked dynamic RAG on HotpotQA: EM and F1 of each strategy, by model."""
COMPONENT_1 = {
    "copy_paste": (0.965, 0.931, 0.915, 0.835, 0.816, 0.805, 0.792, 0.776, 0.753, 0.742, 0.743),
    "reasoning": (0.856, 0.835, 0.819, 0.804, 0.795, 0.781, 0.765, 0.751, 0.738, 0.724, 0.712),
    "contribution": (),
}
"""First canonical correlation at k = 0…10, `PAPER_MODEL`: NIAH (Fig. 4), HotpotQA (Fig. 8); none of contributions."""


def published(table: Published, metric: str) -> dict[str, float]:
    """Published values of a metric by model; empty where the table does not report it.

    How the paper averages R² over heads is open, so its R² is returned for each of ours.

    >>> published(TABLE_3, "r2_flattened")["llama3.1-8b"], published(TABLE_3, "f1")
    (0.812, {})

    """
    name = "r2" if metric.startswith("r2_") else metric
    return {model: row[name] for model, row in table.items() if name in row}


def published_rag() -> TextTable:
    """Table 4 as published, EM / F1."""
    out = TextTable("The paper's Table 4: HotpotQA, EM / F1", ["", *STRATEGIES])
    for model, row in TABLE_4.items():
        out.add_row(model, *((f"{em:.3f} / {f1:.4f}", f"{em:.3f}/{f1:.3f}") for em, f1 in row.values()))
    return out

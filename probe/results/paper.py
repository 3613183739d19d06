"""Table 4 of the paper: EM and F1 of masked dynamic RAG on HotpotQA."""

from rich.table import Table

COLUMNS = ("dynamic", "static", "dynamic random", "fixed random", "w/o RAG")
_ROWS = {
    "llama3.1-8b": "0.456 0.5586 0.398 0.5098 0.272 0.3670 0.272 0.3763 0.252 0.3257",
    "llama3.2-3b": "0.384 0.4993 0.428 0.5386 0.224 0.3143 0.226 0.3051 0.184 0.2439",
    "qwen3-8b": "0.286 0.3580 0.278 0.3429 0.210 0.2804 0.210 0.2804 0.220 0.2961",
    "llama2-13b": "0.284 0.3838 0.278 0.3789 0.276 0.3762 0.272 0.3751 0.192 0.2750",
    "phi4-mini": "0.202 0.2690 0.186 0.2505 0.082 0.1090 0.086 0.1111 0.172 0.2331",
}


def _pairs(row: str) -> dict[str, tuple[float, float]]:
    values = [float(value) for value in row.split()]
    return dict(zip(COLUMNS, zip(values[::2], values[1::2], strict=True), strict=True))


PAPER = {model: _pairs(row) for model, row in _ROWS.items()}
"""EM and F1 of each column, by model."""


def paper_table() -> Table:
    """Table 4 as published, EM / F1."""
    out = Table(title="The paper's Table 4: HotpotQA, EM / F1")
    for header in ("", *COLUMNS):
        out.add_column(header, justify="right" if header else "left")
    for model, row in PAPER.items():
        out.add_row(model, *(f"{em:.3f} / {f1:.4f}" for em, f1 in row.values()))
    return out

"""Attribution methods against plain loops, on records and runs that are made up."""

import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from extract.errors import UserError
from extract.llm import LLM
from probe.attribution import (
    BM25,
    AblatedRuns,
    AttributionMethod,
    AttributionRecord,
    ContextCite,
    Contribution,
    CopyingHeads,
    LeaveOneOut,
    Lexical,
    MeanAttention,
    PredictedHeads,
    Prior,
    RandomSources,
    SourcedPrompt,
    SourcedPrompts,
    StaticHeads,
)
from probe.attribution.masks import sample_masks

TOKENS, LAYERS, HEADS, SOURCES = 5, 3, 4, 6
TEXTS = ("Ada ", "sings", " in ", "Os", "lo.")
DOCUMENTS = ["Ada sings. Bo left Oslo. Oslo is cold.", "Ada and Bo. Nobody sings. It rains."]


def made_up() -> AttributionRecord:
    generator = torch.Generator().manual_seed(0)
    shape = (TOKENS, LAYERS, HEADS, SOURCES + 2)
    copies = torch.rand(shape[:3], generator=generator) < 0.2
    copies[1] = False
    return AttributionRecord(
        torch.arange(TOKENS),
        TEXTS,
        -torch.rand(TOKENS, generator=generator),
        torch.rand(shape, generator=generator),
        torch.randn(shape, generator=generator),
        copies,
        torch.randn(TOKENS, 7, generator=generator),
        torch.rand(TOKENS, generator=generator),
    )


class LinearRuns(AblatedRuns):
    """Ablated runs of a model whose log-probabilities are linear in the mask, with noise."""

    def __init__(self, weights: Tensor, noise: float = 0.0) -> None:
        self.weights, self.noise = weights, noise

    @property
    def sources(self) -> int:
        return self.weights.shape[1]

    def sampled(self, count: int) -> Tensor:
        return sample_masks(count, self.sources, seed=1)

    def log_probs(self, kept: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(int(kept.sum()))
        exact = (kept.float() - 1) @ self.weights.T
        return exact - 0.1 + self.noise * torch.randn(exact.shape, generator=generator)


@pytest.fixture
def prompt(llm: LLM) -> SourcedPrompt:
    return SourcedPrompts(llm).build("Who?", DOCUMENTS)


def loop(record: AttributionRecord, name: str, chosen: Any, mean: bool) -> Tensor:
    """Sum or mean over chosen heads, one number at a time."""
    values, found = getattr(record, name), torch.zeros(TOKENS, SOURCES)
    for t in range(TOKENS):
        heads = [(layer, h) for layer in range(LAYERS) for h in range(HEADS) if chosen(t, layer, h)]
        for s in range(SOURCES):
            total = math.fsum(float(values[t, layer, h, s]) for layer, h in heads)
            found[t, s] = total / (max(1, len(heads)) if mean else 1)
    return found


def test_methods_of_heads_equal_loops(prompt: SourcedPrompt) -> None:
    record = made_up()
    copies = record.copies

    def copying(t: int, layer: int, head: int) -> bool:
        return bool(copies[t, layer, head])

    def fallen_back(t: int, layer: int, head: int) -> bool:
        return bool(copies[t, layer, head] or not copies[t].any())

    cases: list[tuple[AttributionMethod, str, Any, bool]] = [
        (MeanAttention(), "attention", lambda *_: True, True),
        (CopyingHeads(), "attention", copying, True),
        (CopyingHeads(fallback="mean"), "attention", fallen_back, True),
        (Contribution(), "contribution", lambda *_: True, False),
        (Contribution(heads="copying"), "contribution", copying, False),
    ]
    for method, name, chosen, mean in cases:
        found = method.attribute(record, prompt)
        torch.testing.assert_close(found, loop(record, name, chosen, mean), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(method.scores(record, prompt), found.sum(0))
    assert not CopyingHeads().attribute(record, prompt)[1].any()
    assert len({method.name for method, *_ in cases}) == 4


class Identity:
    """Shape of the made-up record's model."""

    layers, heads = LAYERS, HEADS


def test_static_heads_are_the_top_of_a_ranking(prompt: SourcedPrompt, tmp_path: Path) -> None:
    (tmp_path / "ranking.json").write_text(json.dumps([["2-1", 0.9], ["0-3", 0.5], ["1-0", 0.1]]))
    method, llm = (
        StaticHeads(ranking=str(tmp_path / "ranking.json"), n=2),
        cast(LLM, type("", (), {"identity": Identity})),
    )
    method.prepare(llm)
    found = method.attribute(made_up(), prompt)
    wanted = loop(made_up(), "attention", lambda _, layer, head: (layer, head) in ((2, 1), (0, 3)), mean=True)
    torch.testing.assert_close(found, wanted)
    assert method.describe() == {"class": "StaticHeads", "heads": [3, 9]}
    for wrong, broken in (
        ("either `ranking`", StaticHeads()),
        ("either `ranking`", StaticHeads(ranking="a", store="b")),
        ("there is no ranking file", StaticHeads(ranking=str(tmp_path / "none.json"))),
        ("top 4 of them cannot", StaticHeads(ranking=str(tmp_path / "ranking.json"), n=4)),
    ):
        with pytest.raises(UserError, match=wrong):
            broken.prepare(llm)


def test_predicted_heads_are_the_probes(prompt: SourcedPrompt, monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier's own threshold, or the top by score."""
    import probe

    torch.manual_seed(0)
    classifier = probe.ProbeClassifier(7, LAYERS * HEADS, hidden=[5]).eval()
    monkeypatch.setattr("probe.attribution.methods.known_heads.load", lambda *_, **__: classifier)
    record = made_up()
    with torch.no_grad():
        scores = classifier.predict_scores(record.hidden).view_as(record.copies)
    for top in (None, 3):
        method = PredictedHeads("any", top=top)
        method.prepare(cast(LLM, type("", (), {"identity": None})))
        best = scores.flatten(1).sort(dim=1, descending=True).values[:, 2]

        def chosen(t: int, layer: int, head: int, top: int | None = top, best: Tensor = best) -> bool:
            return bool(scores[t, layer, head] >= (0.5 if top is None else best[t]))

        torch.testing.assert_close(method.attribute(record, prompt), loop(record, "attention", chosen, mean=True))


def test_lexical_scores_are_rare_words_in_common(prompt: SourcedPrompt) -> None:
    record, sources = made_up(), ["ada sings", "bo left oslo", "oslo is cold", "ada and bo", "nobody sings", "it rains"]
    wanted = torch.zeros(SOURCES)
    for word in ("ada", "sings", "in", "oslo"):
        have = [n for n, text in enumerate(sources) if word in text.split()]
        for n in have:
            wanted[n] += math.log((1 + SOURCES) / (1 + len(have))) + 1
    torch.testing.assert_close(Lexical().scores(record, prompt), wanted)
    matrix = Lexical().attribute(record, prompt)
    assert matrix[3].equal(matrix[4])
    assert matrix[3].any()
    import bm25s

    index = bm25s.BM25()
    index.index([text.split() for text in sources], show_progress=False)
    whole = torch.from_numpy(index.get_scores(["ada", "sings", "oslo"]))
    torch.testing.assert_close(BM25().scores(record, prompt), whole.float())


def test_lexical_scores_of_texts_without_words(llm: LLM) -> None:
    bare = SourcedPrompts(llm).build("Who?", ["…", "!!"])
    for method in (Lexical(), BM25()):
        assert not method.attribute(made_up(), bare).any()


def test_ablation_methods_find_a_linear_model(prompt: SourcedPrompt) -> None:
    """Leave-one-out exactly; the lasso at a vanishing strength, too, as scikit-learn's path has it."""
    record, weights = made_up(), torch.rand(TOKENS, SOURCES, generator=torch.Generator().manual_seed(3))
    exact = LinearRuns(weights)
    object.__setattr__(record, "log_probs", exact.log_probs(torch.ones(1, SOURCES, dtype=torch.bool))[0])
    torch.testing.assert_close(LeaveOneOut().attribute(record, prompt, exact), weights, atol=1e-5, rtol=1e-5)
    method = ContextCite(ablations=40, alpha=1e-7)
    masks = exact.sampled(40)
    p = exact.log_probs(masks).double().sum(1).exp().numpy()
    design = np.column_stack([masks.double().numpy(), np.ones(40)])
    fitted = np.linalg.lstsq(design, np.log(p / (1 - p)), rcond=None)[0][:SOURCES]
    found = method.scores(record, prompt, exact)
    torch.testing.assert_close(found, torch.from_numpy(fitted).float(), atol=1e-3, rtol=1e-3)
    assert not ContextCite(alpha=100.0).scores(record, prompt, exact).any()


def test_prior_is_ridge_around_scores(prompt: SourcedPrompt) -> None:
    """The closed form of both regressions; without runs the scores themselves; many runs find the model."""
    record, noisy = made_up(), LinearRuns(torch.rand(TOKENS, SOURCES, generator=torch.Generator().manual_seed(3)), 0.2)
    base = CopyingHeads().attribute(record, prompt)
    assert Prior(CopyingHeads(), ablations=0).attribute(record, prompt).equal(base)
    found = Prior(CopyingHeads(), ablations=4, strength=0.5).attribute(record, prompt, noisy)
    masks = torch.cat([torch.ones(1, SOURCES, dtype=torch.bool), noisy.sampled(4)])
    x = masks.double().numpy()
    y = torch.cat([record.log_probs[None], noisy.log_probs(masks[1:])]).double().numpy()
    z = x @ base.double().numpy().T
    slope = max(0.0, np.polyfit(z.sum(1), y.sum(1), 1)[0])
    residual, centred = y - slope * z, x - x.mean(0)
    ridge = np.linalg.solve(centred.T @ centred + 0.5 * np.eye(SOURCES), centred.T @ (residual - residual.mean(0)))
    torch.testing.assert_close(found, torch.from_numpy(slope * base.double().numpy() + ridge.T).float())
    exact = LinearRuns(noisy.weights)
    object.__setattr__(record, "log_probs", exact.log_probs(masks[:1])[0])
    many = Prior(CopyingHeads(), ablations=40, strength=1e-6).attribute(record, prompt, exact)
    torch.testing.assert_close(many, noisy.weights, atol=1e-3, rtol=1e-3)
    with pytest.raises(UserError, match="ContextCite needs ablated runs itself"):
        Prior(ContextCite()).prepare(LLM())


def test_methods_name_the_runs_that_they_need(prompt: SourcedPrompt) -> None:
    record, linear = made_up(), LinearRuns(torch.rand(TOKENS, SOURCES))
    for method in (LeaveOneOut(), ContextCite(), Prior(MeanAttention())):
        with pytest.raises(UserError, match=f"{type(method).__name__} needs ablated runs"):
            method.attribute(record, prompt)
        assert len(method.ablations(linear))
    for free in (CopyingHeads(), Lexical(), RandomSources(), Prior(MeanAttention(), ablations=0)):
        assert len(free.ablations(linear)) == 0
    first = RandomSources().attribute(record, prompt)
    assert first.equal(RandomSources().attribute(record, prompt))
    assert not first.equal(RandomSources(seed=1).attribute(record, prompt))


def test_an_empty_answer_has_no_scores(prompt: SourcedPrompt) -> None:
    whole = made_up()
    fields = {name: getattr(whole, name)[:0] for name in whole.__dataclass_fields__}
    empty, linear = AttributionRecord(**fields), LinearRuns(torch.rand(TOKENS, SOURCES)[:0])
    methods = (CopyingHeads(), Contribution(), Lexical(), BM25(), LeaveOneOut(), ContextCite(), Prior(CopyingHeads()))
    for method in methods:
        assert method.attribute(empty, prompt, linear).shape == (0, SOURCES)

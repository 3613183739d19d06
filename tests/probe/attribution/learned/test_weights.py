"""Learned head weights: a slow reference, planted truths, and what fitted weights score."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from extract.errors import UserError
from extract.llm import LLM
from extract.utils import hashed_json
from probe.attribution import CopyingHeads, LearnedHeads, MeanAttention, Prior, RecordMethod
from probe.attribution.learned import DynamicHeadWeights, HeadWeights
from probe.attribution.learned.batches import EffectBatches, TrainingAnswer, batch_of
from probe.attribution.learned.effects import Features
from probe.attribution.masks import sample_masks
from probe.attribution.metrics import pearson, rank_agreement
from tests.probe.attribution.test_methods import HEADS, LAYERS, SOURCES, TOKENS, made_up

HIDDEN, COUNT = 6, LAYERS * HEADS
Truth = Any


def answer(seed: int, weights: Truth, sources: int = SOURCES, runs: int = 20) -> TrainingAnswer:
    """An answer whose log-probabilities are linear in the mask, by head weights that may depend on the hidden state."""
    rng = torch.Generator().manual_seed(seed)
    tokens = 2 + seed % 4
    features = torch.rand(tokens, COUNT, sources, generator=rng).half()
    hidden = torch.randn(tokens, HIDDEN, generator=rng)
    masks = sample_masks(runs, sources, seed)
    scores = torch.einsum("th,ths->ts", weights(hidden), features.float())
    return TrainingAnswer(features, hidden, masks, masks.float() @ scores.T)


def static_truth(hidden: Tensor) -> Tensor:
    return torch.linspace(-1, 1, COUNT).expand(len(hidden), -1)


def dynamic_truth(hidden: Tensor) -> Tensor:
    """The sign of one direction of the hidden state decides which half of the heads acts."""
    half = torch.cat([torch.ones(COUNT // 2), -torch.ones(COUNT // 2)])
    return hidden[:, :1] * half


def fitted(module: HeadWeights, answers: list[TrainingAnswer], steps: int = 300) -> HeadWeights:
    """The module after some steps of Adam on all answers together."""
    module.begin(answers)
    batch, optimizer = batch_of(answers), torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (module.loss(batch)[0] + module.penalty()).backward()
        optimizer.step()
    return module.eval()


@torch.no_grad()
def lds(module: HeadWeights, answers: list[TrainingAnswer]) -> float:
    predicted, true, known = module.predictions(batch_of(answers), "answer")
    return float(np.mean([rank_agreement(x[k], y[k]) for x, y, k in zip(predicted, true, known, strict=True)]))


@pytest.mark.parametrize("level", ["answer", "token"])
@pytest.mark.parametrize("kind", [HeadWeights, DynamicHeadWeights])
def test_loss_and_gradient_equal_a_loop(kind: Any, level: Any) -> None:
    """Batches of answers of other lengths, sources and numbers of runs; scipy's correlation; central differences."""
    torch.manual_seed(0)
    answers = [answer(n, static_truth, sources=3 + n, runs=5 + n) for n in range(4)]
    module = kind(HIDDEN, COUNT, level=level)
    module.begin(answers)
    for parameter in module.parameters():
        parameter.data += torch.randn_like(parameter) / 2
    module.double()

    def loop() -> float:
        found = []
        for one in answers:
            weights = module(one.hidden.double()).detach()
            kept = np.zeros((len(one.masks), len(one.hidden)))
            for r, mask in enumerate(one.masks.tolist()):
                for t in range(len(one.hidden)):
                    for s, stays in enumerate(mask):
                        if stays:
                            kept[r, t] += float(weights[t] @ one.features[t, :, s].double())
            true = one.log_probs.double().numpy()
            pairs = [(kept.sum(1), true.sum(1))] if level == "answer" else list(zip(kept.T, true.T, strict=True))
            found += [1 - stats.pearsonr(x, y).statistic for x, y in pairs]
        return float(np.mean(found))

    batch = batch_of(answers)
    batch = batch._replace(**{name: getattr(batch, name).double() for name in ("hidden", "kept", "log_probs")})
    loss, rows = module.loss(batch)
    assert loss.item() == pytest.approx(loop(), abs=1e-5)
    assert rows == (4 if level == "answer" else sum(len(one.hidden) for one in answers))
    loss.backward()
    for parameter in module.parameters():
        place = int(parameter.grad.abs().argmax())
        values, step = parameter.data.view(-1), 1e-4
        before = float(values[place])
        ends = []
        for sign in (1, -1):
            values[place] = before + sign * step
            ends.append(loop())
        values[place] = before
        assert float(parameter.grad.view(-1)[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3)


def test_a_static_truth_is_recovered() -> None:
    torch.manual_seed(0)
    train, val = ([answer(n, static_truth) for n in range(a, b)] for a, b in ((0, 30), (30, 40)))
    module = HeadWeights(HIDDEN, COUNT)
    module.begin(train)
    assert lds(module, val) < 0.9
    fitted(module, train)
    assert lds(module, val) > 0.99
    found, truth = module(torch.zeros(1, HIDDEN))[0].detach(), static_truth(torch.zeros(1, HIDDEN))[0]
    assert float(torch.nn.functional.cosine_similarity(found, truth, dim=0)) > 0.99


def test_only_dynamic_weights_recover_a_truth_that_depends_on_the_hidden_state() -> None:
    torch.manual_seed(0)
    train, val = ([answer(n, dynamic_truth) for n in range(a, b)] for a, b in ((0, 60), (60, 80)))
    static = fitted(HeadWeights(HIDDEN, COUNT), train)
    dynamic = fitted(DynamicHeadWeights(HIDDEN, COUNT, rank=1), train)
    assert lds(static, val) < 0.5
    assert lds(dynamic, val) > 0.95


def test_dynamic_weights_begin_at_the_static_ones() -> None:
    torch.manual_seed(0)
    answers = [answer(n, static_truth) for n in range(10)]
    static, dynamic = HeadWeights(HIDDEN, COUNT), DynamicHeadWeights(HIDDEN, COUNT)
    for module in (static, dynamic):
        module.begin(answers)
        weights = module(answers[0].hidden)
        torch.testing.assert_close(weights, weights[:1, :1].expand_as(weights))  # the mean over heads


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(3, 12))
def test_pearson_is_scipys(seed: int, rows: int, runs: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, known = rng.normal(size=(rows, runs)), rng.normal(size=(rows, runs)), rng.random((rows, runs)) < 0.8
    found = pearson(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(known))
    for row in range(rows):
        if known[row].sum() < 3:
            assert bool(found[row].isnan())
        else:
            wanted = stats.pearsonr(x[row, known[row]], y[row, known[row]]).statistic
            assert float(found[row]) == pytest.approx(wanted, abs=1e-9)


def test_every_answer_is_in_one_batch_of_an_epoch() -> None:
    answers = [answer(n, static_truth) for n in range(7)]
    batches = EffectBatches(answers, 3, seed=1)
    assert sorted(batches.order(0)) == list(range(7)) == sorted(batches.order(1))
    assert batches.order(0) != batches.order(1)
    sizes = [len(batch.known) for number in range(3) if (batch := batches[number, 0]) is not None]
    assert sizes == [3, 3, 1]
    assert batches[3, 0] is None


def test_learned_heads_score_as_a_loop(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    record = made_up()
    kinds: dict[Features, tuple[str, ...]] = {
        "attention": ("attention",),
        "contribution": ("contribution",),
        "both": ("attention", "contribution"),
    }
    for features, names in kinds.items():
        module = DynamicHeadWeights(7, COUNT, features=features).eval()
        for parameter in module.parameters():
            parameter.data += torch.randn_like(parameter)
        module.training_record = {"seen": ["content-1:a"]}
        monkeypatch.setattr("probe.attribution.methods.learned_heads.load_trained", lambda *_, m=module, **__: m)
        method = LearnedHeads(".")
        prior = Prior(method, ablations=0)
        prior.prepare(llm)
        assert method.training_ids == prior.training_ids == {"content-1:a"}
        weights, values = module(record.hidden).detach(), [getattr(record, name) for name in names]
        wanted = torch.zeros(TOKENS, SOURCES)
        for t in range(TOKENS):
            for s in range(SOURCES):
                flat = [float(x[t, layer, head, s]) for x in values for layer in range(LAYERS) for head in range(HEADS)]
                wanted[t, s] = float(np.dot(flat, weights[t].numpy()))
        torch.testing.assert_close(method.score_record(record), wanted, atol=1e-4, rtol=1e-4)
        assert isinstance(method, RecordMethod)
    with pytest.raises(UserError, match="train them with: lightning fit"):
        LearnedHeads("none.ckpt").prepare(llm)


def test_weights_of_another_model_are_refused(llm: LLM, tmp_path: Path) -> None:
    module = HeadWeights(HIDDEN, COUNT)
    other = {**llm.identity.as_dict(), "weights": "sha256:other"}
    split = {"by": "sample", "fractions": [0.8, 0.2, 0.0], "seed": 0}
    record = {"llm": other, "store": "s", "target": "log_probability", "split": split, "seen": []}
    fields = {"probe": {"class": "probe.HeadWeights", "origin": record}, "state_dict": module.state_dict()}
    settings = {"in_features": HIDDEN, "num_heads": COUNT}
    torch.save({**fields, "hyper_parameters": settings}, tmp_path / "best.ckpt")
    with pytest.raises(UserError, match="is not valid for") as refused:
        LearnedHeads(str(tmp_path / "best.ckpt")).prepare(llm)
    assert "\n" not in str(refused.value)


def test_a_prior_has_one_strength(llm: LLM) -> None:
    for settings in ({"strength": None}, {"strength": 1.0, "choice_file": "any"}):
        with pytest.raises(UserError, match="give either `strength`"):
            Prior(MeanAttention(), **cast(Any, settings)).prepare(llm)
    with pytest.raises(UserError, match="set `scale: null`"):
        Prior(MeanAttention(), strength=None, scale=2.0, choice_file="any").prepare(llm)


def test_a_choice_of_another_model_or_method_is_refused(llm: LLM, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    rows = [
        {"ablations": 4, "strength": s, "scale": a, "description": {"class": "MeanAttention"}, "lds": {"value": v}}
        for s, a, v in ((0.1, None, 0.5), (3.0, 2.5, 0.7), (10.0, 2.5, 0.6))
    ]
    held = {"experiment": "attribution_choice", "llm": llm.identity.as_dict(), "samples": ["content-1:a"]}
    file.write_bytes(hashed_json({**held, "candidates": rows}))
    prior = Prior(MeanAttention(), ablations=4, strength=None, choice_file=str(file))
    prior.prepare(llm)
    assert (prior.strength, prior.scale) == (3.0, 2.5)
    assert prior.training_ids == {"content-1:a"}
    assert (prior.describe()["strength"], prior.describe()["scale"]) == (3.0, 2.5)
    other = {**held["llm"], "weights": "sha256:other"}  # type: ignore[dict-item]
    for wrong, method, content in (
        ("no candidate of CopyingHeads", CopyingHeads(), {**held, "candidates": rows}),
        (
            "was chosen for",
            MeanAttention(),
            {**held, "llm": other, "candidates": rows},
        ),
        ("holds no choice", MeanAttention(), {"experiment": "attribution"}),
    ):
        file.write_bytes(hashed_json(content))
        with pytest.raises(UserError, match=wrong):
            Prior(method, ablations=4, strength=None, choice_file=str(file)).prepare(llm)

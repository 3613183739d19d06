"""The asymmetric loss against its formula, plain BCE, and its numerical edges."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from probe.models.losses import asymmetric_loss, masked_mse
from probe.models.mlp import MLP
from tests.helpers import reference

gammas = st.sampled_from([0.0, 1.0, 2.0, 4.0])


@given(st.integers(0, 10_000), gammas, gammas, st.sampled_from([0.0, 0.05, 0.2]))
def test_equals_the_formula(seed: int, gamma_neg: float, gamma_pos: float, clip: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 5, generator=generator) * 3
    labels = (torch.rand(3, 5, generator=generator) > 0.6).float()
    mine = asymmetric_loss(logits, labels, gamma_neg, gamma_pos, clip)
    assert mine.item() == pytest.approx(reference.asl(logits, labels, gamma_neg, gamma_pos, clip), rel=1e-4, abs=1e-6)


def test_over_rows_it_is_averaged_or_summed() -> None:
    logits, labels = torch.randn(4, 6), (torch.rand(4, 6) > 0.5).float()
    rows = [reference.asl(logits[n : n + 1], labels[n : n + 1], 4.0, 1.0, 0.05) for n in range(4)]
    assert asymmetric_loss(logits, labels).item() == pytest.approx(sum(rows) / 4, rel=1e-4)
    assert asymmetric_loss(logits, labels, reduction="sum").item() == pytest.approx(sum(rows), rel=1e-4)
    plain = asymmetric_loss(logits, labels, 0.0, 0.0, 0.0, reduction="sum")
    torch.testing.assert_close(plain, F.binary_cross_entropy_with_logits(logits, labels, reduction="sum"))


@pytest.mark.parametrize(
    ("name", "function"), [("relu", F.relu), ("gelu", F.gelu), ("silu", F.silu), ("tanh", torch.tanh)]
)
def test_the_hidden_layers_have_the_activation_of_that_name(name: Any, function: Any) -> None:
    mlp, x = MLP(4, [5], 3, dropout=0.0, activation=name), torch.randn(2, 4)
    first, last = mlp.layers[0], mlp.layers[3]
    torch.testing.assert_close(mlp(x), last(function(first(x))))


def test_without_focus_and_clip_it_is_binary_cross_entropy() -> None:
    logits, labels = torch.randn(4, 6, requires_grad=True), (torch.rand(4, 6) > 0.5).float()
    mine = asymmetric_loss(logits, labels, 0.0, 0.0, 0.0)
    theirs = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / 4
    torch.testing.assert_close(mine, theirs)
    (ours,) = torch.autograd.grad(mine, logits)
    (bce,) = torch.autograd.grad(theirs, logits)
    torch.testing.assert_close(ours, bce)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_stay_finite(dtype: torch.dtype) -> None:
    logits = torch.tensor([[-100.0, 100.0, -100.0, 100.0]], dtype=dtype, requires_grad=True)
    loss = asymmetric_loss(logits, torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_focal_weights_carry_no_gradient_and_grad_mode_is_left_alone() -> None:
    logits = torch.tensor([[0.3]], requires_grad=True)
    asymmetric_loss(logits, torch.tensor([[1.0]]), 4.0, 1.0, 0.0).backward()
    p = torch.sigmoid(torch.tensor(0.3))
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(-((1 - p) * (1 - p)).item())  # weight × d(-ln p)/dx
    with torch.no_grad():
        asymmetric_loss(logits, torch.tensor([[1.0]]))
        assert not torch.is_grad_enabled()


def test_mse_leaves_heads_without_a_score_out() -> None:
    predicted = torch.tensor([[1.0, 5.0], [0.0, 2.0]], requires_grad=True)
    loss = masked_mse(predicted, torch.tensor([[0.0, torch.nan], [0.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(5 / 3)
    assert predicted.grad is not None
    assert predicted.grad[0, 1] == 0

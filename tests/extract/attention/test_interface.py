"""The recorder against eager attention, and ablated heads against zeroed projection columns."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from extract.attention import ATTENTION_IMPLEMENTATION, RecordingPlan, instrumented, recording
from extract.errors import UserError
from extract.llm import LLM


@pytest.fixture(scope="module")
def tiny(tiny_llm_folder: Path) -> LLM:
    return LLM(str(tiny_llm_folder))


def batch(lengths: tuple[int, ...] = (9, 12, 7)) -> tuple[Tensor, Tensor, Tensor]:
    """Left-padded random tokens, their mask and positions."""
    width = max(lengths)
    ids = torch.randint(5, 400, (len(lengths), width), generator=torch.Generator().manual_seed(1))
    mask = torch.stack([torch.arange(width) >= width - n for n in lengths])
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


@torch.no_grad()
def eager_rows(folder: str, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """Last attention row of every head, [batch, layer, head, key], and the last hidden state."""
    model = LLM(folder, attention="eager").model
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions, output_attentions=True)
    return torch.stack([layer[:, :, -1] for layer in out.attentions], dim=1)


@pytest.mark.parametrize("split", [None, 1, 5])
@torch.inference_mode()
def test_last_row_equals_eager_in_prefill_and_decode(tiny: LLM, split: int | None) -> None:
    ids, mask, positions = batch()
    truth = eager_rows(tiny.name, ids, mask, positions)
    columns = torch.rand(*ids.shape, 3) * mask[..., None]
    with instrumented(tiny.model):
        cache = None
        if split is not None:
            cut = ids.shape[1] - split
            cache = tiny.model(
                input_ids=ids[:, :cut], attention_mask=mask[:, :cut], position_ids=positions[:, :cut], use_cache=True
            ).past_key_values
            ids, positions = ids[:, cut:], positions[:, cut:]
        with recording(tiny.model, RecordingPlan(columns=columns, full_rows=True)) as recorder:
            tiny.model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache)
        assert torch.equal(recorder.argmax, truth.argmax(-1))
        torch.testing.assert_close(recorder.rows, truth, atol=1e-6, rtol=0)
        torch.testing.assert_close(recorder.mass, torch.einsum("blhk,bkc->blhc", truth, columns), atol=1e-6, rtol=0)


@contextmanager
def zeroed_columns(model: torch.nn.Module, ablate: Tensor) -> Iterator[None]:
    """The slow way: zero the heads' columns at each output projection's input."""
    hooks = []
    for layer, block in enumerate(model.model.layers):  # type: ignore[union-attr, arg-type]
        size = block.self_attn.head_dim

        def zero(_: object, inputs: tuple[Tensor], layer: int = layer, size: int = size) -> tuple[Tensor]:
            keep = (~ablate[:, layer]).float().repeat_interleave(size, dim=1)
            return (inputs[0] * keep[:, None],)

        hooks.append(block.self_attn.o_proj.register_forward_pre_hook(zero))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("length", [1, 6])
@torch.inference_mode()
def test_ablation_equals_zeroed_projection_columns(tiny: LLM, length: int) -> None:
    ids, mask, positions = batch()
    ids, mask, positions = ids[:, -length:], mask[:, -length:], positions[:, -length:]
    model = tiny.model
    ablate = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(2)) > 0.5

    def logits(chosen: Tensor | None) -> Tensor:
        with instrumented(model), recording(model, RecordingPlan(ablate=chosen)):
            found: Tensor = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        return found

    plain, ablated, none = logits(None), logits(ablate), logits(torch.zeros_like(ablate))
    with zeroed_columns(model, ablate):
        slow = logits(None)
    torch.testing.assert_close(ablated[mask], slow[mask], atol=1e-5, rtol=0)
    assert (ablated - plain)[mask].abs().max() > 1e-3
    assert torch.equal(none, plain)  # bit for bit


@torch.inference_mode()
def test_hidden_is_what_the_head_reads(tiny: LLM) -> None:
    ids, mask, positions = batch()
    with instrumented(tiny.model), recording(tiny.model) as recorder:
        out = tiny.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, output_hidden_states=True, logits_to_keep=1
        )
    torch.testing.assert_close(recorder.hidden, out.hidden_states[-1][:, -1], atol=0, rtol=0)
    torch.testing.assert_close(tiny.model.lm_head(recorder.hidden), out.logits[:, -1])


def test_it_undoes_itself_even_after_an_error(tiny: LLM) -> None:
    model = LLM(tiny.name, attention="eager").model
    hooks = len(model._forward_pre_hooks)
    with pytest.raises(KeyError), instrumented(model), recording(model):
        assert model.config._attn_implementation == ATTENTION_IMPLEMENTATION
        raise KeyError
    assert model.config._attn_implementation == "eager"
    assert len(model._forward_pre_hooks) == hooks


@torch.inference_mode()
def test_attention_outside_the_interface_is_refused(tiny: LLM) -> None:
    model = LLM(tiny.name, attention="eager").model
    with recording(model) as recorder:  # not instrumented: eager attention answers
        model(input_ids=torch.tensor([[5, 6, 7]]))
        with pytest.raises(UserError, match=r"LlamaForCausalLM: attention of 0 of its 3 layers"):
            _ = recorder.argmax

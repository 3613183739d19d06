"""Logit contributions by autograd: a full eager forward with norms' statistics and all indirect paths detached."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.helpers.families import projections

FEED_FORWARD = ("mlp", "block_sparse_moe")
AFTER_ATTENTION = ("post_attention_layernorm",)
POST_NORMS = ("Gemma2", "Gemma3", "Olmo2")
"""Families whose `post_attention_layernorm` reads the attention's output; others' reads the residual stream."""
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm")


@dataclass
class Truth:
    """Of one prompt and answer, by step.

    Attributes:
        heads: Contribution of each head: gradient · output. [step, layer × head].
        tokens: Contribution of each token through each head, up to the query. [layer × head, key] a step.
        logits: The generated tokens' logits before a soft cap. [step].
        rest: Sum of what everything else adds to them: biases, feed-forward layers, embedding. [step].

    """

    heads: Tensor
    tokens: list[Tensor]
    logits: Tensor
    rest: Tensor


def _frozen(module: torch.nn.Module, inputs: tuple[Any, ...], result: Tensor) -> Tensor:
    """A norm's output with its statistics as constants: its output over its input, element by element."""
    states, bias = inputs[0], getattr(module, "bias", None)
    shift = 0 if bias is None else bias
    if "LayerNorm" in type(module).__name__:
        states = states - states.mean(-1, keepdim=True)
    return states * ((result - shift) / states).detach() + shift


class _Attention:
    """Eager attention that keeps weights and values."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        eager = sys.modules[type(module).__module__].eager_attention_forward
        output, weights = eager(module, query, key, value, mask, **options)
        repeated = value.repeat_interleave(weights.shape[1] // value.shape[1], dim=1)
        self.kept[module.layer_idx] = weights[0].detach(), repeated[0].detach()
        return output, weights


def contributions(model: Any, prompt: list[int], answer: list[int]) -> Truth:
    """The contributions at each step of an answer. `model` may have any attention; afterwards it is the same."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    attention, outputs, family = _Attention(), dict[int, Tensor](), type(model).__name__
    AttentionInterface.register("kept", attention)
    AttentionMaskInterface.register("kept", eager_mask)
    former, scores = model.config._attn_implementation, list[Tensor]()
    model.set_attn_implementation("kept")

    def leaf(layer: int) -> Any:
        def hook(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
            outputs[layer] = inputs[0].detach().requires_grad_()
            return (outputs[layer],)

        return hook

    def detached(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return tuple(x.detach() if isinstance(x, Tensor) else x for x in args), {
            name: x.detach() if isinstance(x, Tensor) else x for name, x in kwargs.items()
        }

    with ExitStack() as stack, torch.inference_mode(False), torch.enable_grad():
        hooks = [module.register_forward_pre_hook(leaf(layer)) for layer, module in enumerate(projections(model))]
        for name, module in model.named_modules():
            last, parent = name.rpartition(".")[2], name.rpartition(".")[0].rpartition(".")[2]
            if last in FEED_FORWARD and parent.isdigit():
                hooks.append(module.register_forward_pre_hook(detached, with_kwargs=True))
            post = last in AFTER_ATTENTION and family.startswith(POST_NORMS)
            if post or (last in FINAL_NORMS and not parent.isdigit()):
                hooks.append(module.register_forward_hook(_frozen))
            if hasattr(module, "layer_idx") and last in ("self_attn", "attention", "attn"):
                hooks.append(module.register_forward_pre_hook(detached, with_kwargs=True))
        hooks.append(model.get_output_embeddings().register_forward_hook(lambda _, __, result: scores.append(result)))
        stack.callback(lambda: [hook.remove() for hook in hooks])
        stack.callback(model.set_attn_implementation, former)
        ids = torch.tensor([prompt + answer[:-1]])
        model(ids, use_cache=False)
        steps = range(len(prompt) - 1, ids.shape[1])
        factor = getattr(model.config, "logit_scale", None) or 1 / (getattr(model.config, "logits_scaling", None) or 1)
        logits = scores[0][0, list(steps), answer] * factor
        layers = sorted(outputs)
        gradients = torch.autograd.grad(logits.sum(), [outputs[layer] for layer in layers])
    heads = model.config.num_attention_heads
    by_head = [gradient[0].unflatten(-1, (heads, -1)).transpose(0, 1) for gradient in gradients]  # [head, query, size]
    total = torch.cat(
        [
            (gradient * outputs[layer].detach()[0].unflatten(-1, (heads, -1)).transpose(0, 1)).sum(-1)
            for layer, gradient in zip(layers, by_head, strict=True)
        ]
    )[:, list(steps)].T
    tokens = []
    for query in steps:
        rows = [
            attention.kept[layer][0][:, query, : query + 1]
            * (attention.kept[layer][1][:, : query + 1] @ gradient[:, query, :, None])[..., 0]
            for layer, gradient in zip(layers, by_head, strict=True)
        ]
        tokens.append(torch.cat(rows))
    found = logits.detach()
    return Truth(total, tokens, found, found - total.sum(1))

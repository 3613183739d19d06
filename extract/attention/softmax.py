"""From products of queries and keys to attention weights, with what model families add: soft caps and sinks."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from extract.attention.shared_prefix import KeyValues
from extract.errors import UserError

BLOCK_WEIGHTS = 2**24
"""Most attention weights that `Softmax.attention` forms together (64 MiB in float32)."""
UNSUPPORTED = ("position_bias", "indices", "block_indices", "sinks")
"""Arguments of transformers' attention functions that change the weights in ways not implemented here."""


@dataclass(frozen=True)
class Softmax:
    """Softmax of one layer's attention: `softmax(cap · tanh(scaling · q · k / cap))`, by default without a cap.

    Attributes:
        scaling: Factor of the products, usually head size^-0.5.
        cap: Soft cap of the scaled products, before the mask (Gemma-2); None: none.
        sinks: Logit of each head's attention sink, a share of the attention that no key gets (gpt-oss); None: no sink.
            With it the keys' weights sum to less than 1, as in the model.

    """

    scaling: float
    cap: float | None = None
    sinks: Float[Tensor, "head"] | None = None

    @classmethod
    def of(cls, module: torch.nn.Module, size: int, scaling: float | None, options: dict[str, Any]) -> "Softmax":
        """From what a model passes to its attention function; `size` is that of a head.

        Raises:
            UserError: an argument that changes the weights in a way not implemented here.

        """
        for special in UNSUPPORTED:
            if options.get(special) is not None:
                raise UserError(
                    f"{type(module).__name__}: attention with '{special}' is not supported; choose another model"
                )
        return cls(size**-0.5 if scaling is None else scaling, options.get("softcap"), options.get("s_aux"))

    @property
    def plain(self) -> bool:
        """Whether it has neither cap nor sinks, so that PyTorch's own attention computes it."""
        return self.cap is None and self.sinks is None

    def rows(
        self,
        queries: Float[Tensor, "bg share size"],
        parts: list[KeyValues],
        bias: Float[Tensor, "bg 1 key"] | None,
    ) -> Float[Tensor, "bg share key"]:
        """Attention weights of one query for each row, in float32, over the keys of all `parts` in turn.

        Args:
            queries: By batch × KV head, and the heads that share it.
            parts: Keys: a shared prefix first, if there is one, then each row's own.
            bias: 0, or the dtype's lowest number where masked; None: nothing is masked.

        """
        # The usual case: product, scale and mask in one kernel.
        if self.cap is None and len(parts) == 1:
            keys = parts[0].keys.flatten(0, 1).transpose(1, 2)
            if bias is None:
                logits = torch.bmm(queries * self.scaling, keys)
            else:
                logits = torch.baddbmm(bias, queries, keys, alpha=self.scaling)
        else:
            # The cap comes between scale and mask.
            logits = self._capped(torch.cat([part.query_products(queries * self.scaling) for part in parts], dim=-1))
            if bias is not None:
                logits = logits + bias
        sinks = None
        if self.sinks is not None:
            # Heads are numbered KV head by KV head, as the rows of a sample are: repeated once for each sample.
            sinks = self.sinks.view(-1, queries.shape[1]).repeat(
                queries.shape[0] * queries.shape[1] // len(self.sinks), 1
            )
        return self._weights(logits, sinks)

    def _capped(self, logits: Tensor) -> Tensor:
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap

    def _weights(self, logits: Float[Tensor, "*rows key"], sinks: Float[Tensor, "*rows"] | None) -> Tensor:
        # In float32 whatever the model's precision: bfloat16 rounds small weights away, and argmax ties.
        weights = torch.softmax(logits, dim=-1, dtype=torch.float32)
        if sinks is None:
            return weights
        # The keys' share in a softmax over keys and sink: exp(lse) / (exp(lse) + exp(sink)) = sigmoid(lse - sink).
        kept = torch.sigmoid(torch.logsumexp(logits.float(), dim=-1) - sinks.float())
        return weights * kept[..., None]

    def attention(
        self,
        query: Float[Tensor, "batch head query size"],
        key: Float[Tensor, "batch kvhead key size"],
        value: Float[Tensor, "batch kvhead key vsize"],
        mask: Bool[Tensor, "batch 1 query key"] | None,
    ) -> Float[Tensor, "batch query head vsize"]:
        """Exact attention of a longer query where PyTorch's has no cap or sinks, `BLOCK_WEIGHTS` weights at a time.

        Without a mask it is causal: the last query sees all keys, and each one before it one key less.
        """
        batch, heads, length, _ = query.shape
        size = max(1, BLOCK_WEIGHTS // (batch * heads * key.shape[2]))
        outputs = [
            self._block(query[:, :, start : start + size], key, value, mask, start, length)
            for start in range(0, length, size)
        ]
        return torch.cat(outputs, dim=1)

    def _block(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, start: int, length: int
    ) -> Float[Tensor, "batch query head vsize"]:
        """Attention of the queries from `start` on, of `length` in all."""
        batch, heads, count, _ = query.shape
        groups = key.shape[1]
        visible = _visible_keys(mask, start, count, key.shape[2], length, query.device)
        # Query heads that share a KV head are rows of one product, so that keys need not be repeated.
        rows = (query * self.scaling).reshape(batch, groups, -1, query.shape[3])
        logits = self._capped(rows @ key.transpose(2, 3)).view(batch, heads, count, -1)
        logits = logits.masked_fill(~visible, torch.finfo(logits.dtype).min)
        sinks = None if self.sinks is None else self.sinks.view(1, -1, 1).expand(batch, -1, count)
        weights = self._weights(logits, sinks).to(value.dtype).view(batch, groups, -1, key.shape[2])
        return (weights @ value).view(batch, heads, count, -1).transpose(1, 2)


def _visible_keys(
    mask: Tensor | None, start: int, count: int, keys: int, length: int, device: torch.device
) -> Bool[Tensor, "... query key"]:
    """Which keys each query of a block sees: the mask's, or all up to its own position."""
    if mask is not None:
        return mask[:, :, start : start + count]
    # With a cache there are more keys than queries, and the last query still sees the last key.
    last = torch.arange(start, start + count, device=device) + keys - length
    return torch.arange(keys, device=device) <= last[:, None]


def additive_bias(mask: Tensor, dtype: torch.dtype, groups: int) -> Float[Tensor, "bg 1 key"]:
    """A mask of one query as a bias of its logits: 0 where a key is visible, else the dtype's lowest number.

    Args:
        mask: Boolean (true: visible) or additive already, [batch, 1, 1, key].
        dtype: Of the logits.
        groups: KV heads; each sample's bias is repeated for them.

    Raises:
        UserError: each head has its own mask.

    >>> additive_bias(torch.tensor([[[[False, True]]]]), torch.float32, groups=1)
    tensor([[[-3.4028e+38,  0.0000e+00]]])

    """
    if mask.shape[1] != 1:
        raise UserError("attention with a mask for each head is not supported; choose another model")
    bias = mask
    if mask.dtype == torch.bool:
        bias = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
    return bias[:, 0].repeat_interleave(groups, dim=0)

"""How a model turns products of queries and keys into attention weights, whatever its family does to them."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from extract.attention.shared_prefix import Keys
from extract.errors import UserError

BLOCK = 2**24
"""Most weights that `Softmax.attention` forms at once (64 MiB in float32)."""
UNKNOWN = ("position_bias", "indices", "block_indices", "sinks")
"""What models of transformers hand to their attention function that changes its weights and is not known here."""


@dataclass(frozen=True)
class Softmax:
    """Scale, soft cap and sink of one layer's attention.

    Attributes:
        scaling: Factor of the products.
        cap: Bound of the scaled products, cap × tanh(product / cap), before the mask (Gemma-2); None: unbounded.
        sinks: Logit of each head that takes a share of the attention and gives nothing (gpt-oss); None: no such share.
            The keys' weights then sum to less than 1, as in the model.

    """

    scaling: float
    cap: float | None = None
    sinks: Float[Tensor, "head"] | None = None

    @classmethod
    def of(cls, module: torch.nn.Module, size: int, scaling: float | None, options: dict[str, Any]) -> "Softmax":
        """From what a model hands to its attention function; `size` is that of a head.

        Raises:
            UserError: something that changes the weights and is not known here.

        """
        for special in UNKNOWN:
            if options.get(special) is not None:
                raise UserError(
                    f"{type(module).__name__}: attention with '{special}' is not supported; choose another model"
                )
        return cls(size**-0.5 if scaling is None else scaling, options.get("softcap"), options.get("s_aux"))

    @property
    def plain(self) -> bool:
        """Whether it is a softmax of scaled products, which PyTorch's own attention computes."""
        return self.cap is None and self.sinks is None

    def rows(
        self,
        queries: Float[Tensor, "bg share size"],
        parts: list[Keys],
        bias: Float[Tensor, "bg 1 key"] | None,
    ) -> Float[Tensor, "bg share key"]:
        """Weights of one query for each row, in float32, over the keys of all `parts` in turn.

        Rows are batch × KV head, and the heads that share it. `bias` is 0 or, where masked, the lowest number.
        """
        if self.cap is None and len(parts) == 1:
            keys = parts[0].keys.flatten(0, 1).transpose(1, 2)
            if bias is None:
                logits = torch.bmm(queries * self.scaling, keys)
            else:
                logits = torch.baddbmm(bias, queries, keys, alpha=self.scaling)
        else:
            logits = self._capped(torch.cat([part.logits_of(queries * self.scaling) for part in parts], dim=-1))
            if bias is not None:
                logits = logits + bias
        sinks = None
        if self.sinks is not None:
            sinks = self.sinks.view(-1, queries.shape[1]).repeat(
                queries.shape[0] * queries.shape[1] // len(self.sinks), 1
            )
        return self._weights(logits, sinks)

    def _capped(self, logits: Tensor) -> Tensor:
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap

    def _weights(self, logits: Float[Tensor, "*rows key"], sinks: Float[Tensor, "*rows"] | None) -> Tensor:
        weights = torch.softmax(logits, dim=-1, dtype=torch.float32)
        if sinks is None:
            return weights
        # What a softmax over keys and sink leaves the keys: exp(lse) of exp(lse) + exp(sink).
        kept = torch.sigmoid(torch.logsumexp(logits.float(), dim=-1) - sinks.float())
        return weights * kept[..., None]

    def attention(
        self,
        query: Float[Tensor, "batch head query size"],
        key: Float[Tensor, "batch kvhead key size"],
        value: Float[Tensor, "batch kvhead key vsize"],
        mask: Bool[Tensor, "batch 1 query key"] | None,
    ) -> Float[Tensor, "batch query head vsize"]:
        """Outputs of a longer query, which PyTorch's attention cannot give: exact, `BLOCK` weights at a time.

        Without a mask the last query sees all keys, and each one before it one key less.
        """
        batch, heads, length, _ = query.shape
        size = max(1, BLOCK // (batch * heads * key.shape[2]))
        outputs = [
            self._block(query[:, :, start : start + size], key, value, mask, start, length)
            for start in range(0, length, size)
        ]
        return torch.cat(outputs, dim=1)

    def _block(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, start: int, length: int
    ) -> Float[Tensor, "batch query head vsize"]:
        batch, heads, count, _ = query.shape
        groups = key.shape[1]
        seen = _seen(mask, start, count, key.shape[2], length, query.device)
        rows = (query * self.scaling).reshape(batch, groups, -1, query.shape[3])
        logits = self._capped(rows @ key.transpose(2, 3)).view(batch, heads, count, -1)
        logits = logits.masked_fill(~seen, torch.finfo(logits.dtype).min)
        sinks = None if self.sinks is None else self.sinks.view(1, -1, 1).expand(batch, -1, count)
        weights = self._weights(logits, sinks).to(value.dtype).view(batch, groups, -1, key.shape[2])
        return (weights @ value).view(batch, heads, count, -1).transpose(1, 2)


def _seen(
    mask: Tensor | None, start: int, count: int, keys: int, length: int, device: torch.device
) -> Bool[Tensor, "... query key"]:
    """Which keys the queries from `start` on see."""
    if mask is not None:
        return mask[:, :, start : start + count]
    last = torch.arange(start, start + count, device=device) + keys - length
    return torch.arange(keys, device=device) <= last[:, None]


def additive(mask: Tensor, dtype: torch.dtype, groups: int) -> Float[Tensor, "bg 1 key"]:
    """A mask of one query as a bias of 0 and the dtype's lowest number, for `Softmax.rows`.

    Raises:
        UserError: heads have masks of their own.

    """
    if mask.shape[1] != 1:
        raise UserError("attention with a mask for each head is not supported; choose another model")
    bias = mask
    if mask.dtype == torch.bool:
        bias = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
    return bias[:, 0].repeat_interleave(groups, dim=0)

"""What recorded forwards keep of each head's attention, and which heads they ablate or amplify."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from extract.attention.shared_prefix import SharedPrefix


@dataclass(frozen=True, eq=False)
class RecordingPlan:
    """Settings of recorded forwards, fixed while they are recorded. By default nothing is summed, kept or ablated.

    Attributes:
        columns: Weights of keys: attention is summed over the keys of each column. None: no sums.
        full_rows: Keep the last query's softmax rows in full.
        keep_values: Keep the softmax rows and values that a decode step's attention reads, for logit contributions.
        mean_outputs: Sum up each head's output over all positions, for its mean.
        ablate: Heads whose output is replaced before the output projection; None: no head.
        replacement: By layer, what an ablated head's output becomes; None: zero.
        scale: Factor of each head's output before the output projection; None: 1.
        prefix: Prompts that the rows share and attend to before the keys of the cache; None: there are none.

    """

    columns: Float[Tensor, "batch key column"] | None = None
    full_rows: bool = False
    keep_values: bool = False
    mean_outputs: bool = False
    ablate: Bool[Tensor, "batch layer head"] | None = None
    replacement: dict[int, Float[Tensor, "batch head vsize"]] | None = None
    scale: Float[Tensor, "batch layer head"] | None = None
    prefix: SharedPrefix | None = None

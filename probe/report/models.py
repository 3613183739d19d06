"""Models of a report: results and stores of the same LLM in the same precision belong together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HASHES = ("weights", "config", "tokenizer", "generation_config")
"""What identifies an LLM; an early record lacks some, which are then not compared."""
DETAILS = ("dtype", *HASHES)
"""What is added to a name, in this order, until no two models have the same label."""
UNRECORDED = "model not recorded"

LLM = Mapping[str, Any]


@dataclass(frozen=True)
class Model:
    """A model of the report.

    Attributes:
        number: Its place in the report's order.
        label: Its name, with precision or hashes where another model has the same.
        shape: Its name and size, for the head of the page; empty where the model is not recorded.
        detail: Size, precision and hash of the weights.

    """

    number: int
    label: str
    shape: str = ""
    detail: str = ""


class Models:
    """The models of some records, by name; what records no model comes last.

    Args:
        llms: The identities as results and manifests record them; None where there is none.

    >>> tiny = {"name": "tiny", "weights": "sha256:1", "layers": 2, "heads": 3, "dtype": "float32"}
    >>> models = Models([tiny, {**tiny, "dtype": "bfloat16"}, {**tiny, "config": "sha256:2"}])
    >>> [model.label for model in models.all]
    ['tiny, bfloat16', 'tiny, float32']
    >>> models.of(None).label
    'model not recorded'

    """

    def __init__(self, llms: Iterable[LLM | None]) -> None:
        known: list[dict[str, Any]] = []
        self._unrecorded = False
        for llm in llms:
            if llm is None:
                self._unrecorded = True
                continue
            same = next((one for one in known if _same(one, llm)), None)
            if same is None:
                known.append(dict(llm))
            else:
                same.update({name: llm[name] for name in HASHES if llm.get(name)})
        labels = _labels(known)
        self._known = sorted(zip(labels, known, strict=True), key=lambda pair: pair[0])
        self.all = [self._model(number, *pair) for number, pair in enumerate(self._known)]

    @property
    def several(self) -> bool:
        """Whether results must be distinguished: there are two models, or some of no known model."""
        return len(self._known) > 1 or self._unrecorded

    def of(self, llm: LLM | None) -> Model:
        """The model of a record."""
        for model, (_, known) in zip(self.all, self._known, strict=True):
            if llm is not None and _same(known, llm):
                return model
        return Model(len(self._known), UNRECORDED)

    @staticmethod
    def _model(number: int, label: str, llm: LLM) -> Model:
        size = f"{llm['layers']} layers × {llm['heads']} heads"
        detail = f"{size}, {llm.get('dtype', 'precision unknown')}, {str(llm['weights'])[:19]}"
        return Model(number, label, f"{label} ({size})", detail)


def llm_of(record: Mapping[str, Any]) -> LLM | None:
    """Identity of the LLM in a result or a manifest; of masked RAG else that of its probe; None where neither is.

    >>> llm_of({"experiment": "dynamism"}) is None
    True

    """
    for holder in (record, record.get("probe")):
        llm = holder.get("llm") if isinstance(holder, Mapping) else None
        if isinstance(llm, Mapping) and {"name", "weights", "layers", "heads"} <= llm.keys():
            return llm
    return None


def _same(first: LLM, second: LLM) -> bool:
    """Whether nothing that both record differs."""
    pairs = ((first.get(name), second.get(name)) for name in DETAILS)
    return all(not a or not b or a == b for a, b in pairs)


def _labels(llms: list[dict[str, Any]]) -> list[str]:
    """Names; where several are the same, with as many details as tell them apart."""
    if len(llms) == 1:
        return [str(llms[0]["name"])]
    labels = [_name(llm) for llm in llms]
    for detail in DETAILS:
        for label in {label for label in labels if labels.count(label) > 1}:
            places = [place for place, one in enumerate(labels) if one == label]
            values = [str(llms[place].get(detail) or "unknown")[:15] for place in places]
            for place, value in zip(places, values, strict=True):
                labels[place] += f", {value}" if len(set(values)) > 1 else ""
    return [label if labels.count(label) == 1 else f"{label} ({place + 1})" for place, label in enumerate(labels)]


def _name(llm: LLM) -> str:
    """The name of a hub model or of the embedded one; of a path its last part."""
    name = str(llm["name"])
    return Path(name).name or name if name.startswith(("/", ".", "~")) else name

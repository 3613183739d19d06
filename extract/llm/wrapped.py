"""A frozen model that the caller has loaded."""

from typing import TYPE_CHECKING, Any

from extract.errors import UserError
from extract.llm.llm import LLM
from extract.llm.supported import check_supported

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class WrappedLLM(LLM):
    """A model and a tokenizer of transformers as an LLM: nothing is loaded, and nothing of the model is changed.

    Args:
        model: A causal language model.
        tokenizer: Its fast tokenizer.

    Raises:
        UserError: the model's heads cannot be recorded exactly, or the tokenizer gives no character offsets.

    """

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        super().__init__(str(model.config._name_or_path or type(model).__name__))
        if not tokenizer.is_fast:
            raise UserError(f"{type(tokenizer).__name__} gives no character offsets; use a fast tokenizer")
        check_supported(model)
        self._model, self._tokenizer, self._config = model, tokenizer, model.config
        ends: Any = model.generation_config.eos_token_id if model.generation_config else None
        self._ends = tuple(ends if isinstance(ends, list | tuple) else [] if ends is None else [ends])

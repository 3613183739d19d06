"""Loading of a model's parts with transformers, every failure as one line."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from extract.attention import register_attention
from extract.errors import UserError
from extract.llm.loaded_weights import check_weights, without_load_report
from extract.llm.supported import check_supported, weightless_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Pretrained:
    """A saved model that transformers can load.

    Attributes:
        name: As the user named it, for messages.
        location: A local folder, or a hub id.
        revision: Branch, tag or commit of a hub model.
        trust_remote_code: Run Python code that comes with the model.

    """

    name: str
    location: str
    revision: str | None = None
    trust_remote_code: bool = False

    def config(self) -> "PreTrainedConfig":
        """The config, without any weight.

        Raises:
            UserError: it cannot be loaded.

        """
        from transformers import AutoConfig

        config: PreTrainedConfig = self._load(AutoConfig)
        return config

    def generation_ends(self) -> int | list[int] | None:
        """End tokens of generation_config.json; None without one. All else in it is about sampling."""
        from transformers import GenerationConfig

        try:
            ends: int | list[int] | None = GenerationConfig.from_pretrained(
                self.location, revision=self.revision or "main"
            ).eos_token_id
        except OSError:
            return None
        except Exception as error:
            raise UserError(f"llm '{self.name}': generation_config.json cannot be read ({error})") from error
        return ends

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The fast tokenizer, which knows the character offsets of its tokens.

        Raises:
            UserError: the tokenizer cannot be loaded, or has no offsets.

        """
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = self._load(AutoTokenizer)
        if not tokenizer.is_fast:
            raise UserError(
                f"llm '{self.name}': its tokenizer ({type(tokenizer).__name__}) gives no character offsets, so "
                "spans cannot be found exactly; use a model with a fast tokenizer (tokenizer.json)"
            )
        return tokenizer

    def model(self, **options: Any) -> "PreTrainedModel":
        """The model, frozen and in eval mode.

        Args:
            options: Of transformers' `from_pretrained`.

        Raises:
            UserError: the model cannot be loaded, its heads cannot be recorded exactly, or its weights are not those
                that its config asks for.

        """
        from transformers import AutoModelForCausalLM

        trust = {"trust_remote_code": self.trust_remote_code}
        check_supported(weightless_model(AutoModelForCausalLM, self.config(), **trust))
        register_attention()
        checked = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # our check refuses these, too
        with without_load_report():
            model, loading = self._load(AutoModelForCausalLM, **options, **checked)
        check_weights(f"llm '{self.name}'", model, loading)
        frozen: PreTrainedModel = model.eval()
        return frozen.requires_grad_(False)

    def _load(self, auto: Any, **options: Any) -> Any:
        from transformers.utils import logging

        logging.disable_progress_bar()  # ours is the Trainer's
        try:
            return auto.from_pretrained(
                self.location, revision=self.revision, trust_remote_code=self.trust_remote_code, **options
            )
        except Exception as error:  # configs, tokenizers and devices fail in as many ways as there are classes
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UserError(
                f"llm '{self.name}': cannot be loaded; give embedded:smollm2, a folder, a .gguf file or a "
                f"Hugging Face id that this machine can reach (transformers says: {reason})"
            ) from error

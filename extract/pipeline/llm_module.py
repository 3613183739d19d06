"""Base class of the LightningModules that run the frozen model."""

from lightning import LightningModule

from extract.errors import UserError
from extract.llm import LLM


class LLMStage(LightningModule):
    """LightningModule that runs the frozen model without registering it as a child.

    Args:
        llm: The frozen model; None where the config has none.

    """

    def __init__(self, llm: LLM | None) -> None:
        super().__init__()
        self._llm = llm

    @property
    def llm(self) -> LLM:
        """The frozen model.

        Raises:
            UserError: none was configured.

        """
        if self._llm is None:
            raise UserError("no `llm:` in the config; add one of configs/llm/*.yaml with a further -c")
        return self._llm

    def place_llm(self) -> None:
        """Put the model where the Trainer works.

        Raises:
            UserError: accelerate places it, but there are several processes.

        """
        if self.llm.device_map is not None and self.trainer.world_size > 1:
            raise UserError("llm.device_map spreads one model over devices, so it needs `trainer.devices: 1`")
        self.llm.to(self.device)

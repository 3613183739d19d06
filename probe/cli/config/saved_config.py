"""The config of a run, saved in its log folder."""

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info

from extract.utils import write_bytes
from probe.cli.config.places import SAVED


class SavedConfig(SaveConfigCallback):
    """Save the config atomically in the log folder; a file there that is no saved config is left."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save it, once a run. All processes must ask for the log folder: Lightning broadcasts it."""
        self._folder = trainer.log_dir or trainer.default_root_dir
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file, on rank 0."""
        del trainer, pl_module, stage
        if not _is_local_file_protocol(self._folder):
            return
        file = Path(self._folder) / self.config_filename
        if file.exists() and not _is_saved_config(file):
            rank_zero_info(f"{file} is no saved config of a run: it is left, and this run's is not saved")
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        text: str = self.parser.dump(self.config, skip_none=False)
        write_bytes(file, text.encode())


def _is_saved_config(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(SAVED)) == SAVED.encode()

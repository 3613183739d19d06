"""Trials of a long run, written batch by batch: an interrupted run resumes, and processes share results by files."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from extract.errors import UserError
from extract.utils import (
    check_numbers,
    first_difference,
    read_json,
    remove_temporary_files,
    software,
    user_path,
    write_bytes,
)

Trial = dict[str, Any]
"""One generation: sample, condition, metrics. Plain values, with the same keys in all trials of a run."""


class Trials:
    """A folder of finished batches, each one JSON file, and the settings that they were run with.

    Args:
        folder: Shared by all processes.

    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = user_path(folder)

    def open(self, config: dict[str, Any]) -> list[int]:
        """Start or resume a run; the numbers of the batches that are finished.

        Args:
            config: Everything that determines the trials, in plain values.

        Raises:
            UserError: the folder holds trials of other settings or of another revision of the numbers, or cannot be
                written.

        """
        file, config = self.folder / "settings.json", json.loads(json.dumps(config))
        if file.exists() and self._files():
            former = _read(file)
            self._refuse_other({name: value for name, value in former.items() if name != "software"}, config)
            if line := check_numbers(former, f"run {self.folder}"):
                rank_zero_info(line)
        elif file.exists():
            self._begin(file, config)  # no trial was run with the settings that it names
        elif any(self.folder.glob("*.json")):
            raise UserError(f"{self.folder} holds JSON files of something else; choose another folder for `trials`")
        else:
            self._begin(file, config)
        remove_temporary_files(self.folder)
        return sorted(int(path.stem) for path in self._files())

    def _begin(self, file: Path, config: dict[str, Any]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write trials to {self.folder}: {error.strerror}") from error
        write_bytes(file, (json.dumps({**config, "software": software()}, indent=1) + "\n").encode())

    def _refuse_other(self, former: Any, config: dict[str, Any]) -> None:
        if "config" in config.get("llm", ()) and "config" not in former.get("llm", ()):
            raise UserError(
                f"{self.folder} holds trials of an earlier version, which recorded the model's weights but not its "
                "config and tokenizer; choose another folder for `trials`, or delete that one"
            )
        if difference := first_difference(former, config):
            raise UserError(
                f"{self.folder} holds trials of a run with other settings ({difference}); "
                "choose another folder for `trials`, or delete that one"
            )

    def write(self, batch: int, trials: list[Trial]) -> None:
        """Write a batch, all of it or nothing."""
        write_bytes(self.folder / f"{batch:06d}.json", json.dumps(trials).encode())

    def read(self) -> list[Trial]:
        """All trials so far, in batch order."""
        return [trial for path in self._files() for trial in _read(path)]

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.json") if path.stem.isdigit())


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except ValueError as error:
        raise UserError(f"{path} is damaged; delete it and run again") from error

"""Trials of a long run, written batch by batch: an interrupted run resumes, and processes share results by files."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from extract.errors import UserError
from extract.utils import (
    FolderLock,
    check_numbers,
    first_difference,
    hashed_json,
    parse_hashed,
    parse_json,
    read_hashed,
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
        setting: What a user would choose another folder by, for messages.

    """

    def __init__(self, folder: str | Path, setting: str = "folder for `trials`") -> None:
        self.folder, self._setting = user_path(folder), setting
        self._lock = FolderLock(self.folder, setting)

    def open(self, config: dict[str, Any]) -> list[int]:
        """Start or resume a run; the numbers of the batches that are finished. A damaged batch is reported, and is not.

        Args:
            config: Everything that determines the trials, in plain values.

        Raises:
            UserError: another run writes to the folder, it holds trials of other settings or of another revision of the
                numbers, its settings are damaged, or it cannot be written.

        """
        file, config = self.folder / "settings.json", json.loads(json.dumps(config))
        self._make_folder()
        self._lock.acquire()
        try:
            return self._open(file, config)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Let other runs write to the folder."""
        self._lock.release()

    def _open(self, file: Path, config: dict[str, Any]) -> list[int]:
        if file.exists() and self._files():
            former, _ = read_hashed(file, f"choose another {self._setting}, or delete that one")
            self._refuse_other({name: value for name, value in former.items() if name != "software"}, config)
            if line := check_numbers(former, f"run {self.folder}"):
                rank_zero_info(line)
        elif file.exists():
            self._begin(file, config)  # no trial was run with the settings that it names
        elif any(self.folder.glob("*.json")):
            raise UserError(f"{self.folder} holds JSON files of something else; choose another {self._setting}")
        else:
            self._begin(file, config)
        remove_temporary_files(self.folder, former=True)
        return sorted(int(path.stem) for path in self._files() if self._intact(path))

    def _intact(self, path: Path) -> bool:
        try:
            _read(path)
        except UserError as error:
            rank_zero_info(f"{error}: the batch is run again")
            return False
        return True

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write trials to {self.folder}: {error.strerror}") from error

    def _begin(self, file: Path, config: dict[str, Any]) -> None:
        write_bytes(file, hashed_json({**config, "software": software()}, indent=1))

    def _refuse_other(self, former: Any, config: dict[str, Any]) -> None:
        if "config" in config.get("llm", ()) and "config" not in former.get("llm", ()):
            raise UserError(
                f"{self.folder} holds trials of an earlier version, which recorded the model's weights but not its "
                f"config and tokenizer; choose another {self._setting}, or delete that one"
            )
        if difference := first_difference(former, config):
            raise UserError(
                f"{self.folder} holds trials of a run with other settings ({difference}); "
                f"choose another {self._setting}, or delete that one"
            )

    def write(self, batch: int, trials: list[Trial]) -> None:
        """Write a batch, all of it or nothing, with its hash."""
        write_bytes(self.folder / f"{batch:06d}.json", hashed_json({"batch": batch, "trials": trials}))

    def read(self) -> list[Trial]:
        """All trials so far, in batch order.

        Raises:
            UserError: a batch is damaged; running again repeats it.

        """
        return [trial for path in self._files() for trial in _read(path)]

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.json") if path.stem.isdigit())


def _read(path: Path) -> list[Trial]:
    """Trials of a batch file; those of earlier versions are a bare list, without a hash.

    Raises:
        UserError: it is damaged.

    """
    data = path.read_bytes()
    try:
        if data.startswith(b"["):
            former: list[Trial] = parse_json(data.decode(), "it")
            return former
        content, hashed = parse_hashed(data)
        if not hashed or content["batch"] != int(path.stem):
            raise ValueError("it is no batch of this number")
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error})") from error
    trials: list[Trial] = content["trials"]
    return trials

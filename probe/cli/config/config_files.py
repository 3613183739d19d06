"""Config files by name: those of the working folder, and those that are shipped with the package, and scripts."""

import re
from pathlib import Path, PurePath

from extract.errors import UserError
from extract.utils import remove_temporary_files, user_path, write_together
from probe.cli.parser import did_you_mean

SHIPPED = Path(__file__).parents[2] / "configs"


def shipped_configs() -> dict[str, Path]:
    """Every shipped config by its name below `configs/`, those of experiments before those of subfolders."""
    return _shipped("*.yaml")


def shipped_files() -> dict[str, Path]:
    """The shipped configs, and the scripts beside them."""
    return {**shipped_configs(), **_shipped("*.sh")}


def _shipped(pattern: str) -> dict[str, Path]:
    names = {path.relative_to(SHIPPED).as_posix(): path for path in SHIPPED.rglob(pattern)}
    return {name: names[name] for name in sorted(names, key=lambda name: ("/" in name, name))}


def summary(file: Path) -> str:
    """The first line of a config's or a script's header comment."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("# ") for line in lines if line.startswith("# "))


def find_config(value: str) -> str:
    """The file that `-c value` names: one of the working folder, else a shipped one by its relative name.

    Raises:
        UserError: there is neither.

    """
    if not re.fullmatch(r"[^\s:{}]+", value):  # a value may also be YAML itself
        return value
    if (path := user_path(value)).exists():
        return str(path)
    shipped, name = shipped_configs(), PurePath(value).as_posix().removeprefix("configs/")
    if name in shipped:
        return str(shipped[name])
    hint = did_you_mean(PurePath(name).with_suffix(".yaml").as_posix(), shipped)
    raise UserError(f"-c {value}: the file does not exist, and no shipped config has this name{hint}")


def copy_configs(folder: Path, force: bool = False) -> list[str]:
    """Copy the shipped files into a folder; the names of those that it did not hold yet in the same form.

    Raises:
        UserError: a file differs from the shipped one and `force` is not given, or the folder cannot be written.

    """
    new = {name: path for name, path in shipped_files().items() if not _same(path, folder / name)}
    _refuse_overwriting([folder / name for name in new if (folder / name).exists()], force)
    try:
        _write(folder, new)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose another folder") from error
    return list(new)


def _same(shipped: Path, copy: Path) -> bool:
    return copy.is_file() and copy.read_bytes() == shipped.read_bytes()


def _refuse_overwriting(changed: list[Path], force: bool) -> None:
    for path in changed:
        if not path.is_file():
            raise UserError(f"{path} is not a file; choose another folder")
    if changed and not force:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(f"{changed[0]}{more} would be overwritten; choose another folder, or add --force")


def _write(folder: Path, files: dict[str, Path]) -> None:
    """Copy all files beside their places before the first takes its own: a full disk leaves none of them."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(*{(folder / name).parent for name in files}, former=True)
    write_together({folder / name: path.read_bytes() for name, path in files.items()})

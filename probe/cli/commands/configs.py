"""`lightning configs`: the shipped configs and scripts."""

import textwrap

from extract.utils import user_path
from probe.cli.config.config_files import copy_configs, shipped_files, summary

WIDTH = 80


def configs(folder: str | None = None, force: bool = False) -> None:
    """List the shipped configs and scripts, or copy them into a folder to change them there.

    Stages find a shipped config without a copy: `lightning fit -c probe.yaml`. A file in the working folder goes first.

    Args:
        folder: Folder to copy them into; none: list them.
        force: Overwrite files that differ from the shipped ones.

    """
    if folder is None:
        for name, path in shipped_files().items():
            print(f"{name:<28} {summary(path)}")
        return
    written = copy_configs(user_path(folder), force)
    for line in textwrap.wrap(" ".join(written), WIDTH, break_on_hyphens=False):
        print(line)
    print(f"written: {len(written)}; already up to date: {len(shipped_files()) - len(written)}")

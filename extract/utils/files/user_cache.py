"""The user's cache folder."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Folder of converted models and of what is known of verified stores.

    `$RETRIEVAL_HEADS_CACHE`, else one in the user's cache.
    """
    if chosen := os.environ.get("RETRIEVAL_HEADS_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dynamic-retrieval-heads"

"""Writing of checkpoints: atomic files, and folders that one run at a time writes to."""

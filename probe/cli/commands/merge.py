"""`lightning merge`: the stores of several machines as one."""

from extract.store import always_verified, merge_stores
from extract.utils import say


def merge(stores: list[str], output: str, verify: bool = False) -> None:
    """Join the score stores of several machines, each extracted with its share of one task's batches.

    The result has the shards of the store that one machine writes. They are hard links where the file system has
    them, else copies; the given stores are left as they are.

    Args:
        stores: Folders of the complete stores, extracted with data.init_args.share 1/N to N/N.
        output: Folder of the new store.
        verify: Hash every shard, also those that have not changed since they were verified.

    """
    with always_verified(verify):
        merged = merge_stores(stores, output)
    content = f"{merged.manifest['steps']} rows of {merged.manifest['samples']} samples"
    done = "merged already" if merged.existed else f"shards linked: {merged.linked}, copied: {merged.copied}"
    say(f"{output}: {content}; {done}")

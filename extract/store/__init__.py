"""The score store: Arrow shards with a manifest, one row a generated token."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

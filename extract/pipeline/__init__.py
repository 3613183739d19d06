"""The extraction stage in Lightning: module, store-writing callback."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Rankings of attention heads: static heads of a store, published files, and how far two rankings agree."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Extraction in Lightning: the module that scores heads, the callback that writes the store."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

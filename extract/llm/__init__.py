"""The frozen language model: what can be loaded, from where, and its identity."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

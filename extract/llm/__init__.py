"""The frozen language model: where it is, how it is loaded, which families are supported, its identity."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

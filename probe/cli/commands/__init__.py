"""Commands beside Lightning's stages, one a file: they need neither a trainer nor a running model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

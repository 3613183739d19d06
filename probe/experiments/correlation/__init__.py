"""Claim 3: canonical correlation of hidden states with later scores (Figs. 4 and 8)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Claim 2: answers with heads ablated (Figs. 2, 3, 6, 7)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

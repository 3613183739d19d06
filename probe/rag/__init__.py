"""Masked dynamic RAG: a probe selects the heads, a trigger the step (Section 5, Algorithms 1 and 2)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Evaluation of grounding: whether scores tell answers that come from the context from those that do not."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Logit contribution: what each head writes towards the generated token, from each source of the context."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

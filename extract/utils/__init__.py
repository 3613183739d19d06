"""Helpers without a concept of the field: files, run records, distributed execution."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Answers with their sources: attribution in one line, citations as JSON, a page to read them, and files of answers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""From text to tokens and back: chat prompts, token spans, words and sentences, detokenization."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Sources of questions with marked evidence: HotpotQA files, JSON Lines, synthetic questions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Diagnosis: why an answer failed, from the heads at the token where it goes wrong; tested by interventions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

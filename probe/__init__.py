"""Probes of retrieval heads, experiments, masked dynamic RAG, and the command line that runs every stage.

What a notebook needs: `load` restores a trained probe, `answer` lets the LLM answer with heads ablated, `write_report`
makes the page of all results, `save_pretrained` and `push_to_hub` share a probe. The classes are for configs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

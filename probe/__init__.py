"""Probes of retrieval heads, experiments, masked dynamic RAG, and the command line that runs every stage.

For notebooks: `load` loads a trained probe, `save_pretrained` and `push_to_hub` share one; `store_ranking` and
`read_ranking` give static heads, `ranking_overlap` compares two rankings; `answer` lets the LLM answer with heads
ablated; `write_report` writes the page of all results. The classes are for configs.
"""

from probe.working_folder import leave_import_path, started_as_module

if started_as_module():
    leave_import_path()

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

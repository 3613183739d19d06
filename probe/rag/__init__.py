"""Masked dynamic RAG: a trained probe chooses the heads, a trigger the moment (Section 5, Algorithms 1 and 2)."""

from probe.rag.content import PosTags, StopWords
from probe.rag.evaluation import RagEvaluation
from probe.rag.heads import Dynamic, DynamicRandom, FixedRandom, Oracle, Static
from probe.rag.strategies import BM25, Full, Gold, WithoutRAG
from probe.rag.triggers import RIND, Always, EveryN, Never
from probe.rag.windows import Windows

__all__ = [
    "BM25",
    "RIND",
    "Always",
    "Dynamic",
    "DynamicRandom",
    "EveryN",
    "FixedRandom",
    "Full",
    "Gold",
    "Never",
    "Oracle",
    "PosTags",
    "RagEvaluation",
    "Static",
    "StopWords",
    "Windows",
    "WithoutRAG",
]

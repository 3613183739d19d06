"""How multi-hop questions are asked: texts of the prompt, and two ways to answer."""

from dataclasses import dataclass

SYSTEM = "You are a helpful AI bot that answers questions for a user."
TEMPLATE = "{context}Question:\n{question}\n\nInstruction:\n{instruction}"
CONTEXT = "Context:\n{context}\n\n"
EXAMPLE = {
    "context": "Eastmill\nEastmill is a town in the province of Westria. It is known for its silk.\n\n"
    "Maria Hill\nMaria Hill is a nurse. Maria Hill went swimming in the town of Eastmill.",
    "question": "In which province is the town where Maria Hill went swimming?",
    "chain": "Maria Hill went swimming in the town of Eastmill. Eastmill is a town in the province of Westria. "
    "So the answer is Westria.",
    "short": "Westria",
}
"""The earlier turn that shows a model, by default, what an answer looks like."""


@dataclass(frozen=True)
class Style:
    """A way to ask.

    Attributes:
        instruction: What the prompt asks for.
        marker: What stands before the answer in a generation; empty where the answer stands alone.
        gold: The gold answer as the model should say it, for teacher forcing.
        budget: Most tokens to generate.

    """

    instruction: str
    marker: str
    gold: str
    budget: int


STYLES = {
    "chain": Style(
        instruction='State the facts that answer the question, then end with "So the answer is" and the answer.',
        marker="So the answer is",
        gold="So the answer is {answer}.",
        budget=100,
    ),
    "short": Style(
        instruction="Answer with a few words from the context only.",
        marker="",
        gold="{answer}",
        budget=24,
    ),
}

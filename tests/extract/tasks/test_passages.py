"""Passages that are left out of a prompt that is too long, against one passage at a time."""

from hypothesis import given
from hypothesis import strategies as st

from extract.tasks.passages import context_text, cut_to_length
from extract.tasks.sources import Passage, Record

passages = st.builds(
    lambda title, words, evidence: Passage(title, "a " * words + "b", ((0, 1),) if evidence else ()),
    title=st.sampled_from(["", "Ada"]),
    words=st.integers(0, 6),
    evidence=st.booleans(),
)


def words(record: Record) -> int:
    """Length of the record's context."""
    return len(context_text(record.passages).split())


@given(st.lists(passages, max_size=12), st.integers(-1, 50))
def test_cutting_leaves_out_the_last_without_evidence_until_it_fits(found: list[Passage], most: int) -> None:
    kept = list(found)
    while len(context_text(kept).split()) > most and any(not passage.evidence for passage in kept):
        last = max(number for number, passage in enumerate(kept) if not passage.evidence)
        del kept[last]
    record = Record("1", "Who?", "Ada", tuple(found))
    cut, length = cut_to_length(record, words, most)
    assert list(cut.passages) == kept
    assert length == words(cut)
    assert (cut is record) == (kept == found)


@given(st.integers(1, 200), st.integers(0, 100))
def test_lengths_are_measured_a_few_times(count: int, most: int) -> None:
    measured = []

    def length(record: Record) -> int:
        measured.append(len(record.passages))
        return words(record)

    cut_to_length(Record("1", "Who?", "Ada", tuple(Passage("", "b") for _ in range(count))), length, most)
    assert len(measured) <= 2 + count.bit_length()

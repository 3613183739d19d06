"""Cards replace cards of this software, and nothing else."""

from pathlib import Path

import pytest

from extract.utils import CARD, write_card

FRONT = "---\nlibrary_name: dynamic-retrieval-heads\n---\n"
STORE = "---\ntags:\n- attention\n- dynamic-retrieval-heads\n---\n"


def test_an_unedited_card_is_replaced(tmp_path: Path) -> None:
    for text in (FRONT + "first\n", FRONT + "second\n"):
        assert write_card(tmp_path, text) is None
        assert (tmp_path / CARD).read_text().startswith(text)


@pytest.mark.parametrize("front", [FRONT, STORE])
def test_a_card_of_an_earlier_version_is_replaced(tmp_path: Path, front: str) -> None:
    (tmp_path / CARD).write_text(front + "former\n")
    assert write_card(tmp_path, front + "new\n") is None
    assert "new" in (tmp_path / CARD).read_text()


@pytest.mark.parametrize(
    "content",
    [
        b"# Mine",
        b"",
        b"\xff\xfe",
        b"# Mine\n\nI use it with\n\n- dynamic-retrieval-heads\n",
        b"---\ntitle: mine\n---\nlibrary_name: dynamic-retrieval-heads\n",
    ],
)
def test_another_readme_stays(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CARD).write_bytes(content)
    assert "is left as it is" in (write_card(tmp_path, FRONT) or "")
    assert (tmp_path / CARD).read_bytes() == content


@pytest.mark.parametrize("where", ["before", "after", "within"])
def test_an_edited_card_stays(tmp_path: Path, where: str) -> None:
    write_card(tmp_path, FRONT + "first\n")
    text = (tmp_path / CARD).read_text()
    edited = {"before": f"mine\n{text}", "after": f"{text}mine\n", "within": text.replace("first", "mine")}[where]
    (tmp_path / CARD).write_text(edited)
    assert "is left as it is" in (write_card(tmp_path, FRONT + "second\n") or "")
    assert (tmp_path / CARD).read_text() == edited


def test_a_link_stays_and_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "card").write_text(FRONT)
    (tmp_path / CARD).symlink_to("card")
    assert write_card(tmp_path, FRONT + "new\n")
    assert (tmp_path / CARD).is_symlink()
    assert (tmp_path / "card").read_text() == FRONT

"""The page of an attributed answer: texts of others are never markup."""

import json
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from probe.attribution.citations.html_view import safe_text
from tests.helpers.attributed_answers import attributed, example

HOSTILE = (
    *("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\" onmouseover='x", "&amp;&lt;"),
    *("\u202edesrever\u2066", "a\x00b\x1b[31m", "{{ 7 * 7 }}{% raw %}", "<!-- ", "]]>", "\\u003c/script>", "\ud800"),
)
TEXT = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=8), min_size=1, max_size=3).map("".join)


class Elements(HTMLParser):
    """Tags of a page in order, the text of tokens and documents, and the script's data."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.texts: dict[str, str] = {}
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        given_id = dict(attrs).get("id")
        if tag in ("p", "h1", "h3", "script", "q", "b"):
            self.inside = given_id or tag
        if tag == "p" and dict(attrs).get("class") == "text":
            self.texts.setdefault(self.inside, "")
            if not given_id:
                self.texts["p"] += "|"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("p", "h1", "h3", "script", "q", "b"):
            self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[self.inside] = self.texts.get(self.inside, "") + data


def page_of(words: list[str], title: str, text: str, question: str) -> tuple[Any, str]:
    middle = max(1, len(text) // 2)
    spans = [(0, middle), (middle, len(text))] if len(text) > 1 else [(0, len(text))]
    scores = [[1.0] + [0.3] * (len(spans) - 1)] * len(words)
    answer = attributed(words, [(title, text, spans)], scores, [0.9] * len(words), question)
    return answer, answer.to_html()


@given(words=st.lists(TEXT, min_size=1, max_size=3), title=TEXT, text=TEXT.filter(bool), question=TEXT)
def test_hostile_texts_add_no_element_and_are_shown(words: list[str], title: str, text: str, question: str) -> None:
    answer, page = page_of(words, title, text, question)
    found = Elements(page)
    _, other = page_of(["w" * max(1, len(word)) for word in words], "t", "x" * len(text), "q")
    # An empty title or word leaves its optional element out; all else is the same.
    optional = ("b", "q", "li", "ol", "p", "span")
    assert [one for one in found.tags if one[0] not in optional] == [
        one for one in Elements(other).tags if one[0] not in optional
    ]
    assert found.tags.count(("script", ())) == 1
    assert {name for _, names in found.tags for name in names if name.startswith("on")} == set()
    assert found.texts["answer"] == safe_text(answer.answer)
    assert found.texts["p"].split("|", 1)[1].startswith(safe_text(text))
    assert safe_text(question).strip() in found.texts["h1"] or not question.strip()
    page.encode()
    assert not set(page) & set("\x00\x1b\u202e\u2066")
    assert "</" not in found.texts["links"]


def test_the_page_fetches_nothing_and_marks_by_more_than_colour() -> None:
    page = example().to_html()
    assert "default-src 'none'" in page
    assert "http://" not in page and "https://" not in page
    tags = [one for one in page.split("<span ") if 'class="token ungrounded ends"' in one]
    assert ["today" in one for one in tags] == [True]
    assert "◌" in page and "wavy" in page


def test_the_script_reads_only_numbers() -> None:
    page = example().to_html()
    links = json.loads(Elements(page).texts["links"])
    assert links["sources"][3] == [[0, 0.8], [1, 0.2]]
    assert links["grounded"] == [True, False, True, True, False, False]
    assert links["document"] == [0, 0, 1]

"""The page of an attributed answer in a browser: hover, focus and click light up both ways; nothing is fetched."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.attributed_answers import attributed, example
from tests.helpers.browser import CHROMIUM, PHONE, READY, WIDE, Tab, until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed: run `make browser`")]
HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\"> \u202eabc\x00"


@pytest.fixture
def tab(browser: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The example's page, opened wide; it must log and request nothing."""
    (tmp_path / "page.html").write_text(example().to_html(), encoding="utf-8")
    one = Tab(browser.new_page(viewport=WIDE))
    one.open(tmp_path / "page.html")
    yield one.page
    one.page.close()
    assert one.messages == []
    assert [url for url in one.requests if not url.startswith(("file:", "data:"))] == []


def lit(page: Any, kind: str) -> list[str]:
    """Texts of the tokens or sources that are lit, strongly or weakly."""
    return [node.text_content().strip() for node in page.locator(f".{kind}.lit, .{kind}.weak").all()]


def test_a_token_lights_up_its_sources_and_a_source_its_tokens(tab: Any) -> None:
    tab.locator(".token", has_text="Westria").hover()
    assert lit(tab, "source") == ["Eastmill is a town in Westria.", "It is known for silk."]
    assert tab.locator(".source[data-rank='1']").text_content().strip() == "Eastmill is a town in Westria."
    assert "document 1 (80 % of the sources)" in tab.text_content("#status")
    tab.locator(".source").nth(2).hover()
    assert lit(tab, "token") == ["Eastmill", "in"]
    tab.locator("h1").hover()
    assert lit(tab, "token") == lit(tab, "source") == []


def test_the_keyboard_moves_holds_and_releases(tab: Any) -> None:
    tab.locator(".token").first.focus()
    for _ in range(3):
        tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.activeElement.textContent") == " Westria"
    tab.keyboard.press("Enter")
    tab.locator(".source").nth(2).hover()  # a held choice stays
    assert lit(tab, "source")[0] == "Eastmill is a town in Westria."
    assert tab.locator("[aria-pressed=true]").text_content() == " Westria"
    tab.keyboard.press("Escape")
    assert lit(tab, "source") == []
    tab.keyboard.press("Tab")  # the group has one stop: the next is the first source
    assert tab.evaluate("document.activeElement.className.startsWith('source')")


def test_an_ungrounded_token_has_a_line_and_a_symbol(tab: Any) -> None:
    node = tab.locator(".token", has_text="today")
    style = "getComputedStyle(node{}).{}".replace("node", "document.querySelectorAll('.token')[4]")
    assert "wavy" in tab.evaluate(style.format("", "textDecorationStyle"))
    assert "◌" in tab.evaluate(style.format(", '::after'", "content"))
    node.hover()
    assert "not grounded" in tab.text_content("#status")


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (WIDE, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_hostile_texts_are_shown_and_fit_the_window(browser: Any, tmp_path: Path, size: Any, scheme: str) -> None:
    text = HOSTILE + "w" * 300
    answer = attributed([HOSTILE, "x" * 200], [(HOSTILE, text, [(0, len(text))])], [[1.0], [0.5]], [1, 0.0], HOSTILE)
    (tmp_path / "page.html").write_text(answer.to_html(), encoding="utf-8")
    one = Tab(browser.new_page(viewport=size, color_scheme=scheme))
    page = one.open(tmp_path / "page.html")
    until(page, READY)
    shown = HOSTILE.replace("\u202e", "\ufffd").replace("\x00", "\ufffd")
    assert page.text_content("#answer") == shown + "x" * 200
    assert page.locator(".source").text_content() == shown + "w" * 300
    assert page.title() != "run" and page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.locator(".token").first.click()
    assert lit(page, "source")
    page.close()
    assert one.messages == []

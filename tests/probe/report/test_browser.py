"""The report in a browser: nothing is fetched, nothing fails, and every control works.

Needs Debian's chromium (`make browser`); set CHROMIUM to another one.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from extract.llm import LLM
from extract.store import ScoreStore
from probe.models import load
from probe.models.checkpoint import save_pretrained
from probe.models.classifier import ProbeClassifier
from probe.report import write_report
from tests.helpers.browser import CHROMIUM, PHONE, WIDE, Tab, ThreadClock, until
from tests.helpers.explorer_store import explorer_store
from tests.helpers.result_records import RECORDS, traces

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed: run `make browser`, or set CHROMIUM"),
]


@pytest.fixture(scope="module")
def report(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of every exhibit, a small store, and one of 1,000-token prompts and 1,024 heads."""
    folder = tmp_path_factory.mktemp("browser")
    for key, record in RECORDS.items():
        (folder / "runs" / key).mkdir(parents=True)
        (folder / "runs" / key / "results.json").write_text(json.dumps(record))
    (folder / "runs" / "rag" / "traces.jsonl").write_text("\n".join(json.dumps(line) for line in traces(2)))
    small = ScoreStore(explorer_store(folder / "a-small", llm))
    trained = ProbeClassifier(8, 12, hidden=[4])
    split = {"by": "sample", "fractions": [0.7, 0.2, 0.1], "sizes": {"train": 7}, "seed": 0}
    trained.training_record = {"llm": small.identity.as_dict(), "store": small.fingerprint, "target": "copy_paste"}
    trained.training_record |= {"split": split, "seen": [f"explorer:{number}" for number in range(9)]}
    save_pretrained(trained, folder / "ckpts" / "explorer")
    explorer_store(folder / "big", llm, layers=32, heads=32, prompt=1000, steps=60, samples=3, threshold=4)
    return write_report([folder], folder / "report.html", samples=2)


@pytest.fixture
def tab(browser: Any, report: Path) -> Iterator[Tab]:
    """A wide page; it must log nothing and request nothing."""
    one = Tab(browser.new_page(viewport=WIDE))
    yield one
    one.page.close()
    assert one.messages == []
    assert [url for url in one.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def picture(page: Any) -> bytes:
    """Pixels of the grid."""
    return bytes(page.locator("#grid").screenshot())


def scroll_through(page: Any) -> None:
    """Bring every plot into view, and wait until each is drawn."""
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
    until(page, "[...document.querySelectorAll('.plot')].every((one) => one.querySelector('.main-svg'))")


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (WIDE, "dark"), (PHONE, "light")])
def test_the_page_opens_and_fits_the_window(browser: Any, report: Path, size: Any, scheme: str) -> None:
    one = Tab(browser.new_page(viewport=size, color_scheme=scheme))
    clock = ThreadClock(one.page)
    page = one.open(report)
    opened = clock.seconds()
    if scheme == "light" or os.environ.get("PICTURES"):
        scroll_through(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]  # nothing sticks out
    if folder := os.environ.get("PICTURES"):
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=f"{folder}/{size['width']}-{scheme}.png", full_page=True)
    page.close()
    assert one.messages == []
    assert {url.split(":")[0] for url in one.requests} == {"file"}
    assert len([url for url in one.requests if url.startswith("file:")]) == 1
    assert 0 < opened < 1
    assert report.stat().st_size < 10e6


def test_slider_keys_and_play_move_the_step(tab: Tab, report: Path) -> None:
    page = tab.open(report)
    page.evaluate(
        "document.querySelector('#step').value = 3; document.querySelector('#step').dispatchEvent(new Event('input'))"
    )
    before, text = picture(page), page.text_content("#step-text")
    assert text.startswith("4 of 12")
    page.locator("#step").focus()
    page.keyboard.press("ArrowRight")
    assert page.text_content("#step-text").startswith("5 of 12")
    assert picture(page) != before
    page.locator("#prompt").focus()  # keys work anywhere within
    page.keyboard.press("ArrowLeft")
    assert page.text_content("#step-text") == text
    assert picture(page) == before
    page.keyboard.press("End")
    assert page.text_content("#step-text").startswith("12 of 12")
    page.select_option("#speed", "10")
    # Timers of the page run when the test says so, however busy the machine is.
    page.clock.install(time=0)
    page.clock.pause_at(3_600_000)
    page.click("#play")  # from the end it begins anew
    page.clock.run_for(200)
    assert page.text_content("#step-text").startswith("3 of 12")
    page.click("#play")
    page.clock.run_for(1000)
    assert page.text_content("#step-text").startswith("3 of 12")
    assert page.get_attribute("#play", "aria-pressed") == "false"


def test_heads_and_argmax_positions_are_the_stores(tab: Tab, report: Path) -> None:
    steps = ScoreStore(report.parent / "a-small").steps(9)  # the first that is held out from the probe
    at = 1 + int(steps.copy_paste[1:].sum(axis=(1, 2)).argmax())
    page = tab.open(report, f"#explorer?store=0&sample=0&step={at}")
    assert json.loads(page.text_content("#stores"))[0]["samples"][0]["sample"] == 9
    names = [f"{layer}-{head}" for layer, head in steps.scoring(at)]
    assert page.locator("#heads button").all_text_contents() == names
    trained = load(report.parent / "ckpts" / "explorer")
    with torch.inference_mode():
        predicted = trained.predict_heads(torch.from_numpy(steps.hidden.copy()))[at].numpy()  # type: ignore[operator]
    now, before = steps.copy_paste[at].ravel(), steps.copy_paste[at - 1].ravel()
    right = int((predicted & now).sum())
    text = f"{len(names)} heads score; {int(predicted.sum())} predicted, {right} of them correctly."
    assert page.text_content("#grid-text") == text
    retained, added, dropped = (int(x.sum()) for x in (now & before, now & ~before, before & ~now))
    jaccard = f"{retained / (retained + added + dropped):.2f}"
    changes = f"this step: {retained} retained, {added} added, {dropped} dropped, Jaccard {jaccard}"
    assert page.text_content("#changes-text") == changes
    assert steps.argmax is not None
    attended = sorted({int(steps.argmax[at, layer, head]) for layer, head in steps.scoring(at)})
    marked = page.evaluate("[...document.querySelectorAll('#prompt .t')].flatMap((t, i) => t.dataset.n ? [i] : [])")
    assert marked == attended
    first, end = steps.sample["evidence"][0]
    evidence = page.evaluate(
        "[...document.querySelectorAll('#prompt .t')].flatMap((t, i) => t.matches('.evidence') ? [i] : [])"
    )
    assert evidence == list(range(first, end))


def test_a_head_is_pinned_by_keyboard_and_a_link_restores_the_view(tab: Tab, report: Path, browser: Any) -> None:
    page = tab.open(report, "#explorer?store=0&sample=1&step=5")
    page.locator("#grid").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    assert page.locator(".track button").all_text_contents() == ["1-2 ×"]
    assert page.text_content("#step-text").startswith("6 of 12")  # the grid's arrows move no step
    page.check("input[value=pinned]")
    until(page, "location.hash.includes('pin=6') && location.hash.includes('attending=pinned')")
    other = Tab(browser.new_page(viewport=WIDE))
    again = other.open(report, page.evaluate("location.hash"))
    for part in ("#step-text", "#tracks", "#grid-text", "#sample-answer"):
        assert again.text_content(part) == page.text_content(part)
    assert again.is_checked("input[value=pinned]")
    again.click(".track button")
    assert again.locator(".track").count() == 0
    again.close()
    assert other.messages == []


def test_a_script_in_a_needle_is_shown_not_run(tab: Tab, report: Path) -> None:
    page = tab.open(report)
    assert "<script>document.title='run'</script>" in page.text_content("#prompt")
    assert "<script>" in page.text_content("#sample-answer")
    assert page.title() == "Dynamic retrieval heads: report"


def test_a_step_of_a_thousand_tokens_and_heads_takes_less_than_a_tenth_of_a_second(tab: Tab, report: Path) -> None:
    page = tab.open(report, "#explorer?store=1&sample=0&step=0")
    assert page.locator("#prompt .t").count() >= 1000
    clock = ThreadClock(page)
    before = clock.seconds()
    page.evaluate(
        """async () => {
            const slider = document.querySelector("#step");
            for (let step = 1; step < 50; step++) {
                slider.value = step;
                slider.dispatchEvent(new Event("input"));
                document.body.offsetHeight;  // style and layout are part of it
                await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
            }
        }"""
    )
    assert 0 < (clock.seconds() - before) / 49 < 0.1


def test_rag_traces_are_shown_draft_by_draft(tab: Tab, report: Path) -> None:
    page = tab.open(report)
    assert page.text_content(".word.hit").startswith("⟦<b>Ada⟧")  # as text, not as bold
    assert (
        page.text_content("#rag-visible")
        == "5 of 10 context tokens become visible, with 3 of 5 tokens of the supporting facts."
    )
    assert page.locator("#rag-map .window").evaluate("(one) => [one.style.left, one.style.width]") == ["0%", "50%"]
    assert page.locator("#rag-map .fact").evaluate("(one) => [one.style.left, one.style.width]") == ["20%", "50%"]
    assert "<script>Ada lived in Oslo." in page.text_content("#rag-context")
    assert "1-2" in page.text_content("#rag-outcome")
    page.click("#rag-forward")
    assert page.text_content("#rag-position") == "draft 2 of 2"
    assert page.locator("#rag-map .window").count() == 0
    assert "No retrieval" in page.text_content("#rag-outcome")
    assert "Final answer (answered)" in page.text_content("#rag-outcome")
    page.select_option("#rag-strategy", "1")
    assert page.text_content("#rag-position") == "draft 1 of 2"


def test_every_control_has_a_name_and_can_be_reached(tab: Tab, report: Path) -> None:
    page = tab.open(report)
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, select, input, canvas")].filter((one) =>
            !(one.textContent.trim() || one.ariaLabel || one.getAttribute("aria-label") || one.labels?.length
              || one.getAttribute("aria-describedby"))).map((one) => one.outerHTML)"""
    )
    assert nameless == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_colours_can_be_read(tab: Tab, report: Path) -> None:
    """WCAG contrast of text on its ground: 4.5 in light and dark; heads that score stand out in grey too: 3."""
    page = tab.open(report)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate(
            """() => {
                const style = getComputedStyle(document.documentElement);
                const light = (name) => {
                    const hex = style.getPropertyValue(name).trim();
                    const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
                        .map((x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const contrast = (a, b) => {
                    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
                    return (x + 0.05) / (y + 0.05);
                };
                const grounds = ["--bg", "--panel"];
                return {
                    text: ["--ink", "--soft", "--c1"].flatMap((of) => grounds.map((on) => contrast(of, on))),
                    marks: [["--hot", "--cell"], ["--hot", "--cold"], ["--attended-ink", "--attended"]]
                        .map(([a, b]) => contrast(a, b)),
                };
            }"""
        )
        assert min(found["text"]) >= 4.5, found
        assert min(found["marks"]) >= 2.5, found

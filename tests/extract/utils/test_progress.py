"""Progress: one line in a terminal, a line now and then in a log, none where it is switched off."""

import io
import time

import pytest

from extract.utils import Progress, progress, said_if_slow, show_progress


class Screen(io.StringIO):
    """A terminal, or a log."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture(autouse=True)
def _shown() -> None:
    """A stage that another test ran in this process may have switched progress off."""
    show_progress(True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, which the test sets."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def work(clock: list[float], screen: Screen, seconds: int, delay: float = 2.0) -> str:
    """What is shown of work that has a thousand states a second."""
    begun = clock[0]
    with Progress("work", 1000 * seconds, "prompts", delay, screen) as shown:
        for number in range(1, 1000 * seconds + 1):
            clock[0] = begun + number / 1000
            shown.show(number)
    return screen.getvalue()


def test_a_log_has_a_line_each_thirty_seconds_and_no_carriage_return(clock: list[float]) -> None:
    text = work(clock, Screen(terminal=False), seconds=100)
    assert "\r" not in text
    assert text.splitlines() == [
        "work: 30,000/100,000 prompts, 1:10 left",
        "work: 60,000/100,000 prompts, 0:40 left",
        "work: 90,000/100,000 prompts, 0:10 left",
    ]


def test_a_terminal_has_one_line_a_few_times_a_second_and_nothing_of_quick_work(clock: list[float]) -> None:
    text = work(clock, Screen(terminal=True), seconds=10)
    assert "\n" not in text
    assert " 50%|" in text and "work: 5,0" in text and "0:05 left" in text
    assert text.count("\r") <= 2 * 10 / progress.REDRAWN_EVERY
    assert work(clock, Screen(terminal=True), seconds=1) == ""


def test_switched_off_it_is_silent(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(progress._state, "shown", True)
    show_progress(False)
    assert work(clock, Screen(terminal=True), seconds=10) == work(clock, Screen(terminal=False), seconds=90) == ""
    show_progress(True)
    monkeypatch.setattr("lightning.fabric.utilities.rank_zero.rank_zero_only.rank", 1)  # another process of several
    assert work(clock, Screen(terminal=False), seconds=90) == ""


def test_slow_work_is_said_and_quick_work_not(capsys: pytest.CaptureFixture[str]) -> None:
    with said_if_slow("loading a model", seconds=0.05):
        time.sleep(0.5)
    with said_if_slow("loading another", seconds=5):
        pass
    assert capsys.readouterr().err == "loading a model\n"

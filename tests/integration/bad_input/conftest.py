"""One folder with a store, a config and a checkpoint for all tables of mistakes."""

from pathlib import Path

import pytest

from tests.helpers.bad_input import workshop


@pytest.fixture(scope="session")
def place_of_mistakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workshop(tmp_path_factory.mktemp("mistakes"))


@pytest.fixture
def place(place_of_mistakes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, as the working folder."""
    monkeypatch.chdir(place_of_mistakes)
    return place_of_mistakes

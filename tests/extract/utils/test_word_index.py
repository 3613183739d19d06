"""The index of words starts no other framework."""

import sys
from pathlib import Path

import pytest

from extract.utils import bm25_index


@pytest.mark.parametrize("imported", [False, True])
def test_jax_is_not_started(imported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JAX that is installed is not imported; one that the user has imported stays."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("")
    (tmp_path / "jax" / "lax.py").write_text("top_k = lambda scores, k: open('started', 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] in {"bm25s", "jax"}]:
        monkeypatch.delitem(sys.modules, name)
    if imported:
        import jax  # noqa: F401  # the folder above
    assert bm25_index([["oslo"], ["rome"]]).get_scores(["rome"]).argmax() == 1
    assert ("jax" in sys.modules) == imported
    assert Path("started").exists() == imported
    for name in [name for name in sys.modules if name.partition(".")[0] in {"bm25s", "jax"}]:
        del sys.modules[name]  # those of before come back with monkeypatch's undoing

"""`lightning predict --model.init_args.contribution true`: the column, the manifest, and stores without it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from extract.generation import decode
from extract.llm import LLM
from extract.store import ScoreStore
from extract.tasks import Sample
from tests.conftest import Run

ON = ("--model.init_args.contribution", "true")


def test_the_store_keeps_the_contribution_of_the_evidence(
    extract_tiny: Callable[..., tuple[int, str]], run: Run, tiny_llm_folder: Path, tmp_path: Path
) -> None:
    assert extract_tiny(tmp_path / "with", *ON)[0] == 0
    assert extract_tiny(tmp_path / "without")[0] == 0
    store, plain = ScoreStore(tmp_path / "with"), ScoreStore(tmp_path / "without")
    assert (store.manifest["contribution"], plain.manifest["contribution"]) == (True, False)
    llm = LLM(str(tiny_llm_folder))
    for number in range(5):
        steps, other = store.steps(number), plain.steps(number)
        assert other.contribution is None
        for name in ("tokens", "hidden", "copy_paste", "reasoning", "argmax"):  # bit for bit
            np.testing.assert_array_equal(getattr(steps, name), getattr(other, name))
        row = steps.sample
        spans = [(start, end) for start, end in row["evidence"]]
        sample = Sample(0, "0", row["prompt"], spans, len(steps), "", "", forced=steps.tokens.tolist())
        wanted = decode(llm, [sample], sources=[[spans]]).contribution
        assert wanted is not None
        assert steps.contribution is not None
        found = steps.contribution.reshape(len(steps), -1)
        np.testing.assert_allclose(found, wanted[0, :, :, 0], atol=1e-4 * float(wanted.abs().max()))
        assert np.abs(found).max() > 0
    # another setting is another store
    code, said = extract_tiny(tmp_path / "without", *ON)
    assert (code, "contribution" in said) == (2, True)
    out = tmp_path / "heads.json"
    code, said = run("ranking", tmp_path / "with", out, "--target", "contribution", "--split.by", "row")
    assert code == 0, said
    code, said = run("ranking", tmp_path / "without", out, "--target", "contribution")
    assert code == 2
    assert said.count("\n") == 1
    assert "holds no 'contribution' scores" in said

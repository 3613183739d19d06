"""Static rankings: published files, round trips, overlap against brute force, bad input."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from datamodules import ScoreRows
from extract.errors import UserError
from probe.cli.main import main
from probe.heads import Ranking, ranking_overlap, read_ranking, write_ranking
from tests.conftest import Run
from tests.extract.tasks.test_sources import DATA
from tests.helpers.stores import make_store

PUBLISHED = DATA / "published_scores"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published rankings are not here")


def whole(scores: NDArray[np.float64]) -> Ranking:
    return Ranking(scores, True, "test")


@published
def test_published_lists_keep_their_order() -> None:
    for file in sorted((PUBLISHED / "qrhead").glob("*.yaml")):
        heads = 32 if "3.1-8B" in file.name else 24
        layers = 32 if "3.1-8B" in file.name else 28
        listed = yaml.safe_load(file.read_text())["attn_head_set"].split(",")
        numbers = [int(a) * heads + int(b) for a, b in (name.split("-") for name in listed)]
        assert read_ranking(file).on_grid(layers, heads).top(16) == numbers


@published
def test_published_gates_go_to_every_query_head_of_their_group() -> None:
    file = PUBLISHED / "duo_attention" / "Llama-3.1-8B-Instruct.tsv"
    ranking, table = read_ranking(file), np.loadtxt(file, delimiter="\t")
    wide = ranking.on_grid(32, 32)
    for layer, head in [(0, 0), (0, 3), (0, 4), (17, 31)]:
        assert wide.scores[layer, head] == table[layer, head // 4]
    np.testing.assert_array_equal(wide.by_kv_head(8, "mean").scores, table)
    profile = json.loads((PUBLISHED / "retrieval_head_profile" / "Llama-3.1-8B-Instruct.json").read_text())
    copied = whole(np.array(profile["copy_scores"]))
    both = ranking_overlap(ranking, copied)
    assert (both.unit, both.heads) == ("KV heads", 256)
    assert both.p_spearman < 0.01  # two ways to find retrieval heads of one LLM agree better than chance


@given(st.integers(1, 5), st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_rankings_survive_their_files(layers: int, groups: int, width: int, seed: int) -> None:
    scores = np.random.default_rng(seed).random((layers, groups * width))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in (folder / "r.json", folder / "r.tsv"):
            write_ranking(whole(scores), file)
            np.testing.assert_array_equal(read_ranking(file).scores, scores)
        write_ranking(whole(scores), folder / "r.yaml")
        assert read_ranking(folder / "r.yaml").top(scores.size) == np.argsort(-scores.ravel()).tolist()
    reduced = whole(scores).by_kv_head(groups, "max").scores
    assert reduced.tolist() == [[max(row[g * width : (g + 1) * width]) for g in range(groups)] for row in scores]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_overlap_equals_brute_force(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((3, 4)), rng.random((3, 4)).round(1)
    found = ranking_overlap(whole(a), whole(b), n)
    best = [{i for _, i in sorted((-x, i) for i, x in enumerate(side.ravel()))[:n]} for side in (a, b)]
    assert found.shared == len(best[0] & best[1])
    assert found.spearman == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic)
    assert ranking_overlap(whole(b), whole(a), n).shared == found.shared
    assert ranking_overlap(whole(a), whole(a), n).shared == n


def test_chance_is_what_random_tops_share() -> None:
    rng = np.random.default_rng(0)
    pairs = [ranking_overlap(whole(rng.random((4, 5))), whole(rng.random((4, 5))), 6) for _ in range(300)]
    assert np.mean([pair.shared for pair in pairs]) == pytest.approx(pairs[0].expected, abs=0.2)
    assert np.mean([pair.p_spearman <= 0.1 for pair in pairs]) == pytest.approx(0.1, abs=0.06)
    three = next(pair.p_shared for pair in pairs if pair.shared == 3)
    assert np.mean([pair.shared >= 3 for pair in pairs]) == pytest.approx(three, abs=0.08)


def test_a_stores_ranking_is_the_mean_of_its_training_rows(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "store", samples=20, shards=2)
    file = tmp_path / "out" / "ranking.json"
    assert run("ranking", tmp_path / "store", file)[0] == 0
    rows = ScoreRows(str(tmp_path / "store"))
    rows.setup("test")
    means = np.concatenate(
        [batch.scores for batch in map(rows.batches("train").batch, range(100)) if len(batch.scores)]
    )
    np.testing.assert_allclose(read_ranking(file).scores.ravel(), means.mean(axis=0), atol=1e-6)
    assert main(["overlap", str(tmp_path / "store"), str(file), "--n", "2"]) == 0
    assert "shared in the top 2" in capsys.readouterr().out
    assert run("ranking", tmp_path / "store", tmp_path / "kv.tsv", "--kv_heads", 1)[0] == 0
    assert read_ranking(tmp_path / "kv.tsv").scores.shape[1] == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.txt", "", "a .json, .yaml or .tsv file is expected"),
        ("r.json", "{", "is not JSON"),
        ("r.json", "[]", "at least one score for each head"),
        ("r.json", '{"1-2": []}', "at least one score for each head"),
        ("r.json", '{"1-2": ["x"]}', "1-2: finite numbers"),
        ("r.json", '{"1.2": [1]}', "'1.2' is not a head"),
        ("r.json", "{}", "names no head"),
        ("r.json", '{"99999-99999": [1]}', "no LLM has that many"),
        ("r.yaml", "attn_head_set: [", "is not YAML"),
        ("r.yaml", "heads: 1-2", "attn_head_set"),
        ("r.yaml", "attn_head_set: 1-2,3-4,1-2", "names head 1-2 twice"),
        ("r.tsv", "1\t2\n1", "equally many numbers"),
        ("r.tsv", "1\tx", "could not convert"),
        ("r.tsv", "1\tnan", "finite numbers"),
    ],
)
def test_bad_rankings_get_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="r\\.") as error:
        read_ranking(tmp_path / name)
    assert message in str(error.value)


def test_rankings_of_another_llm_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not fit 2 layers × 3 heads"):
        whole(np.zeros((2, 2))).on_grid(2, 3)
    (tmp_path / "a.yaml").write_text("attn_head_set: 5-1")
    with pytest.raises(UserError, match="head 5-1, which does not fit"):
        read_ranking(tmp_path / "a.yaml").on_grid(5, 3)
    code, said = run("overlap", tmp_path / "a.yaml", tmp_path / "none.tsv")
    assert code == 2
    assert "there is no ranking file" in said
    code, said = run("overlap", tmp_path / "a.yaml", tmp_path / "a.yaml")
    assert code == 2
    assert "ranks 1 heads" in said

"""Static rankings: published files, round trips, overlap against brute force, bad input."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
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


grids = st.tuples(st.integers(2, 5), st.integers(1, 5))


@given(grids, grids, st.sampled_from([".json", ".yaml", ".tsv"]), st.sampled_from([".json", ".yaml", ".tsv"]))
@settings(max_examples=60)
def test_rankings_of_two_grids_are_not_compared(
    first: tuple[int, int], second: tuple[int, int], suffix: str, other: str
) -> None:
    """Whatever the files: only a TSV's columns may be KV heads, which are compared with the query heads of a file."""
    narrow, wide = sorted(((*first, suffix), (*second, other)), key=lambda side: side[1])
    by_group = narrow[2] == ".tsv" and wide[2] != ".tsv" and wide[1] % narrow[1] == 0
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"a{suffix}", Path(name) / f"b{other}"]
        for file, grid in zip(files, (first, second), strict=True):
            write_ranking(whole(np.random.default_rng(0).random(grid)), file)
        sides = [read_ranking(file) for file in files]
        if first == second or (first[0] == second[0] and by_group):
            assert ranking_overlap(*sides, n=1).heads == min(first[0] * first[1], second[0] * second[1])
        else:
            with pytest.raises(UserError, match="rankings of two LLMs are not compared"):
                ranking_overlap(*sides, n=1)


def test_overlap_of_two_grids_is_one_line(run: Run, tmp_path: Path) -> None:
    for name, grid in (("a", (30, 9)), ("b", (28, 12)), ("kv", (30, 3))):
        write_ranking(whole(np.random.default_rng(0).random(grid)), tmp_path / f"{name}.json")
    code, said = run("overlap", tmp_path / "a.json", tmp_path / "b.json")
    assert code == 2
    assert "a.json ranks 30 layers × 9 heads, " in said and "b.json ranks 28 layers × 12 heads: " in said
    (tmp_path / "few.json").write_text('["29-8", "3-1"]')
    assert "ranks head 29-8: rankings" in run("overlap", tmp_path / "b.json", tmp_path / "few.json", "--n", 1)[1]
    assert run("overlap", tmp_path / "a.json", tmp_path / "few.json", "--n", 1)[0] == 0
    # JSON names query heads: that these are KV heads has to be said
    assert run("overlap", tmp_path / "a.json", tmp_path / "kv.json")[0] == 2
    assert run("overlap", tmp_path / "a.json", tmp_path / "kv.json", "--heads", 9)[0] == 0


def test_another_llms_ranking_gives_no_static_heads(tmp_path: Path) -> None:
    write_ranking(whole(np.random.default_rng(0).random((28, 3))), tmp_path / "other.json")
    for grid in ((30, 9), (28, 9)):
        with pytest.raises(UserError, match="holds 28 layers × 3 heads, which does not fit"):
            read_ranking(tmp_path / "other.json").on_grid(*grid)


FORMS = {
    "Wu et al.": {"13-18": [0.5, 1.0], "2-1": [0.5]},
    "one score each": {"13-18": 0.75, "2-1": 0.5},
    "LOCOS": {"meta": {"model": "m", "seed": 0}, "scores": {"13-18": [0.5, 1.0], "2-1": [0.5]}, "trial_ids": ["a"]},
    "QRHead": [["13-18", 0.75], ["2-1", 0.5]],
    "unsorted pairs": [["2-1", 0.5], ["13-18", 0.75]],
    "pairs of names": {"important_heads": [["L13_H18", 0.75], ["L2_H1", 0.5]], "responses": []},
}
LISTS = {
    "names": ["13-18", "2-1"],
    "important heads": {"important_heads": ["L13H18", "L2.H1"]},
    "nodes": ["a13.h18", "a2.h1"],
    "Attention Tracker": {"model_info": {"name": "m"}, "params": {"important_heads": [[13, 18], [2, 1]]}},
}


@pytest.mark.parametrize("form", FORMS)
def test_scores_in_the_forms_of_other_projects(tmp_path: Path, form: str) -> None:
    (tmp_path / "r.json").write_text(json.dumps(FORMS[form]))
    found = read_ranking(tmp_path / "r.json")
    assert found.scores.shape == (14, 19)
    assert (found.scores[13, 18], found.scores[2, 1], int(np.isfinite(found.scores).sum())) == (0.75, 0.5, 2)


@pytest.mark.parametrize("form", LISTS)
def test_lists_of_heads_keep_their_order(tmp_path: Path, form: str) -> None:
    (tmp_path / "r.json").write_text(json.dumps(LISTS[form]))
    found = read_ranking(tmp_path / "r.json")
    assert [found.grid.name(head) for head in found.top(2)] == ["13-18", "2-1"]
    assert (found.scores[13, 18], found.scores[2, 1]) == (1.0, 0.5)


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
        ("r.json", '{"1-2": [1], "0-0": [2], "1-2": [3]}', "names head 1-2 twice"),
        ("r.json", '{"meta": {}, "scores": {"1-2": [1], "01-2": [3]}}', "names head 1-2 twice"),
        ("r.json", '[["1-2", 0.5], ["1-2", 0.4]]', "names head 1-2 twice"),
        ("r.json", '{"important_heads": ["L1H2", "1-2"]}', "names head 1-2 twice"),
        ("r.json", "[[1, 2], [3, 4], [1, 2]]", "names head 1-2 twice"),
        ("r.json", '[["1-2", "0.5"]]', "1-2: finite numbers"),
        ("r.json", "[[1, 0.5]]", "'[1, 0.5]' is not a head"),
        ("r.json", '["blocks.1.hook_z"]', "'blocks.1.hook_z' is not a head"),
        ("r.json", '"1-2"', "at least one score for each head"),
        ("r.json", '{"scores": {"1-2": null}}', "at least one score for each head"),
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

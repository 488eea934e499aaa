"""The tables of the language half: every row against the results of the evaluated models."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prt import stats
from prt.cell import Cell
from prt.errors import InputError
from prt.language.results import Evaluated
from prt.methods import METHODS
from prt.tables import Tables, read_table, tables, write_table

N = 60
SKILL = {"pretrained": 0.1, "eft": 0.5, "prt": 0.6, "poe": 0.45, "ft": 0.7, "reward": 0.3, "instruct": 0.65}
Results = dict[tuple[Any, ...], Path]


def transfer(
    files: Iterable[Path],
    pairs: list[tuple[str, str]],
    seeds: tuple[int, ...] = (0, 1, 2),
    loras: tuple[bool, ...] = (False, True),
    without: tuple[str, ...] = ("instruct", "ensemble"),
    alphas: tuple[float, ...] = (0.0, 0.1),
    of_ft: tuple[int, ...] | None = None,
) -> Tables:
    """All tables of both benchmarks; ``of_ft``: the seeds of the target's own fine-tuning, where they are others."""
    cells = [
        Cell(
            dataset=benchmark, source=source, target=target, method=method, alpha=alpha, lora=lora, strength=1.0,
            seed=seed,
        )
        for benchmark in ("gsm8k", "ifeval")
        for lora in loras
        for source, target in pairs
        for method, of in METHODS.items()
        if method not in ("adapted", *without) and not (of.merged or of.at or of.of_texts)
        for alpha in (alphas if of.has_alpha else [None])
        for seed in (of_ft if method == "ft" and of_ft else seeds)
    ]  # fmt: skip
    return tables(cells, Evaluated(files).result)


def write_result(folder: Path, values: dict[str, np.ndarray], cell: dict[str, Any], **changes: Any) -> Path:
    """A result.json as an evaluation leaves it."""
    cell = {"source": None, "alpha": None, "lora": False, "strength": 1.0, "seed": None} | cell
    result = {
        "benchmark": "gsm8k",
        "cell": cell,
        "headline": next(iter(values)),
        "metrics": {metric: float(x.mean()) for metric, x in values.items()},
        "examples": {metric: x.tolist() for metric, x in values.items()},
        "documents": "d0c5",
        "protocol": {"shots": 0, "chat_template": False, "limit": None},
        "versions": {"lm_eval": "0.4.13"},
    } | changes
    name = "_".join(str(x) for x in [result["benchmark"], *cell.values()])
    path = folder / name / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(result))
    return path


def gsm8k(rng: np.random.Generator, skill: float) -> dict[str, np.ndarray]:
    """Both filters: what is strictly right is flexibly right."""
    strict = (rng.random(N) < skill).astype(float)
    return {"strict-match": strict, "flexible-extract": np.maximum(strict, rng.random(N) < 0.1)}


def ifeval(rng: np.random.Generator, skill: float) -> dict[str, np.ndarray]:
    """A mean over prompts and one over instructions (linearised), and the mean of both: the headline."""
    instructions = rng.integers(1, 4, N)
    followed = rng.binomial(instructions, skill)
    prompt, instruction = (followed == instructions).astype(float), followed * N / instructions.sum()
    return {"mean": (prompt + instruction) / 2, "prompt": prompt, "instruction": instruction}


def evaluated(
    folder: Path,
    sources: tuple[str, ...] = ("small",),
    targets: tuple[str, ...] = ("small", "large"),
    seeds: tuple[int, ...] = (0, 1, 2),
    alphas: tuple[float, ...] = (0.0, 0.1),
    loras: tuple[bool, ...] = (False,),
    instruct: bool = False,
    skill: dict[str, float] = SKILL,
) -> Results:
    """All cells of two benchmarks, as a pipeline leaves them: (benchmark, method, source, target, …) → file."""
    rng = np.random.default_rng(0)
    files: Results = {}

    def add(method: str, target: str, bonus: float = 0.0, **cell: Any) -> None:
        for benchmark, make in (("gsm8k", gsm8k), ("ifeval", ifeval)):
            facts = {"method": method, "target": target} | cell
            path = write_result(folder, make(rng, min(max(skill[method] + bonus, 0), 1)), facts, benchmark=benchmark)
            files[benchmark, *facts.values()] = path

    for number, target in enumerate(targets):
        bonus = 0.05 * number
        add("pretrained", target, bonus)
        if instruct:
            add("instruct", target, bonus)
        for lora in loras:
            for seed in seeds:
                if not instruct or target in sources:
                    add("ft", target, bonus, lora=lora, seed=seed)
                for source in sources:
                    for alpha in alphas:
                        facts = {"source": source, "alpha": alpha, "lora": lora, "seed": seed}
                        add("prt", target, bonus - 0.2 * alpha, **facts)
                        if source == target:
                            add("reward", target, **facts)
                    add("poe", target, bonus, source=source, lora=lora, seed=seed)
                    if source != target:
                        add("eft", target, bonus, source=source, lora=lora, seed=seed)
    return files


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return evaluated(tmp_path_factory.mktemp("evaluated"), loras=(False, True))


PAIRS = [("small", "small"), ("small", "large")]


def examples(path: Path, metric: str) -> np.ndarray:
    return np.array(json.loads(path.read_text())["examples"][metric])


def test_every_value_is_that_of_its_result(results: Results) -> None:
    """Names, seeds and values of all rows of one benchmark and metric; the order of the files does not matter."""
    table, summary, _ = transfer(reversed(results.values()), PAIRS)
    assert table.value.isna().sum() == 0
    here = table[
        (table.dataset == "ifeval") & (table.metric == "instruction") & ~table.lora & (table.target == "large")
    ]
    for row in here.to_dict("records"):
        method, seed = row["method"], row["seed"]
        cell = ("ifeval", method, "large", "small", False, seed)
        if method == "pretrained":
            cell = ("ifeval", method, "large")
        if method in ("ft", "source_ft"):
            cell = ("ifeval", "ft", "large" if method == "ft" else "small", False, seed)
        if method in ("prt", "reward"):
            target = "large" if method == "prt" else "small"
            cell = ("ifeval", method, target, "small", row["alpha"], False, seed)
        assert row["value"] == pytest.approx(examples(results[cell], "instruction").mean()), cell
    assert here.groupby("method").size().to_dict() == {
        "pretrained": 1, "eft": 3, "poe": 3, "source_ft": 3, "ft": 3, "prt": 6, "reward": 6
    }  # fmt: skip
    assert here.loc[here["method"].isin(["pretrained", "ft", "source_ft", "reward"]), "strength"].isna().all()
    assert here.loc[here["method"].isin(["prt", "eft", "poe"]), "strength"].eq(1).all()
    assert set(summary[summary.headline].groupby("dataset")["metric"].unique().explode()) == {"strict-match", "mean"}
    assert summary.n.eq(N).all()


def test_on_the_source_itself_eft_is_its_fine_tuned_model(results: Results) -> None:
    table, _, _ = transfer(results.values(), PAIRS)
    own = (
        table[(table.target == "small") & table.headline]
        .set_index(["dataset", "lora", "seed", "method"])["value"]
        .sort_index()
    )
    for dataset, lora, seed in [("gsm8k", False, 1), ("ifeval", True, 2)]:
        eft, source_ft, ft = (own.loc[(dataset, lora, seed, method)] for method in ("eft", "source_ft", "ft"))
        assert eft == source_ft == ft


def test_intervals(results: Results) -> None:
    """Wilson's for a share of examples; over seeds and examples where there are several; never beyond 0 and 1."""
    table, summary, _ = transfer(results.values(), PAIRS)
    of = (summary.target == "large") & (summary.method == "prt") & (summary.alpha == 0) & ~summary.lora
    row = summary[of & (summary.metric == "mean")].iloc[0]
    x = np.stack([examples(results["ifeval", "prt", "large", "small", 0.0, False, s], "mean") for s in range(3)])
    expected = stats.share(x, np.zeros(N, int))
    assert (row["value"], row["low"], row["high"]) == pytest.approx((expected.value, expected.low, expected.high))
    assert row["std"] == pytest.approx(x.mean(1).std(ddof=1))
    assert row["seeds"] == 3
    for of_model in (summary, table):
        alone = of_model[(of_model.method == "pretrained") & (of_model.metric == "strict-match")].iloc[0]
        wilson = stats.wilson(alone["value"], N)
        assert (alone["low"], alone["high"]) == pytest.approx((wilson.low, wilson.high))
    alone = summary[summary.method == "pretrained"].iloc[0]
    assert np.isnan(alone["std"])
    assert table.low.ge(0).all()
    assert table.high.le(1).all()


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("right", [0, 1])
def test_intervals_at_0_and_1_are_the_same_in_every_table(tmp_path: Path, seeds: tuple[int, ...], right: int) -> None:
    """Nobody and everybody right: as wide for one seed as for seeds that agree."""
    files = evaluated(tmp_path, seeds=seeds, alphas=(0.0,), skill=dict.fromkeys(SKILL, float(right)))
    few: dict[str, Any] = {"seeds": seeds, "alphas": (0.0,), "loras": (False,)}
    table, summary, comparison = transfer(files.values(), [("small", "large")], **few)
    e = stats.wilson(right, N)
    for rows in (table, summary):
        rows = rows[rows.metric == "strict-match"]
        assert rows.value.eq(right).all() or not right  # of skill 0, the larger target has a little more
        at = rows[rows.value == right]
        assert len(at)
        assert at[["low", "high"]].to_numpy() == pytest.approx(np.tile([e.low, e.high], (len(at), 1)))
    if right:
        same = comparison[comparison.dataset == "gsm8k"]
        assert same[["difference", "p", "p_holm"]].to_numpy().tolist() == [[0, 1, 1]] * len(same)
        assert (same.low.lt(0) & same.high.gt(0)).all()


def test_real_values_have_an_interval_within_bounds() -> None:
    x = np.array([0.0, 1.5, 1.5, 0.75] * 10)
    e = stats.share(x, np.zeros(40, int))
    assert e.value == pytest.approx(x.mean())
    assert 0.6 < e.low < e.value < e.high < 1  # of fewer right and wrong answers, for they spread less
    exact = stats.share(np.full(40, 0.5), np.zeros(40, int))  # no spread at all
    wilson = stats.wilson(0.5, 40)
    assert wilson.low < exact.low < 0.5 < exact.high < wilson.high


def test_differences_are_paired(results: Results) -> None:
    _, _, comparison = transfer(results.values(), PAIRS)
    rows = comparison.set_index(["dataset", "target", "lora", "method", "baseline"])
    row = rows.loc["gsm8k", "large", False, "prt", "source_ft"]
    x = np.stack([
        examples(results["gsm8k", "prt", "large", "small", 0.0, False, s], "strict-match")
        - examples(results["gsm8k", "ft", "small", False, s], "strict-match")
        for s in range(3)
    ])  # fmt: skip
    e = stats.difference(x, np.zeros(N, int))
    assert (row["difference"], row["low"], row["high"], row["p"]) == pytest.approx((e.value, e.low, e.high, e.p))
    assert rows.loc["gsm8k", "large", True, "eft", "pretrained"]["verdict"] == "better"
    itself = rows.loc["gsm8k", "small", False, "eft", "source_ft"]
    assert (itself["difference"], itself["p"], itself["verdict"]) == (0, 1, "not told apart")
    assert (comparison.p.lt(0.05) == comparison.verdict.ne("not told apart")).all()
    least = comparison.p.min()  # Holm: the least of K is K times as great, and none gets less
    assert comparison.p_holm.min() == pytest.approx(min(1, len(comparison) * least))
    assert comparison.p_holm.ge(comparison.p).all()
    assert comparison.p_holm.tolist() == pytest.approx(stats.holm(comparison.p.to_numpy()).tolist())
    pairs = set(zip(comparison.method, comparison.baseline, strict=True))
    assert len(pairs) == 5 + 4 + 3  # all but instruct; not eft beside itself; poe neither beside itself nor eft
    assert ("poe", "eft") not in pairs


def test_seeds_that_only_one_of_two_has_are_left_out_of_their_difference(tmp_path: Path) -> None:
    """A target that is a source elsewhere may have been tuned with fewer seeds."""
    files = evaluated(tmp_path, seeds=(0, 1, 2))
    fewer = [path for cell, path in files.items() if not (cell[1:3] == ("ft", "large") and cell[-1] == 1)]
    _, summary, comparison = transfer(fewer, [("small", "large")], loras=(False,), of_ft=(0, 2))
    assert summary[summary.method == "ft"].seeds.eq(2).all()
    seeds = comparison[comparison.method == "prt"].set_index(["dataset", "baseline"])["seeds"]
    assert (seeds["gsm8k", "ft"], seeds["gsm8k", "pretrained"]) == (2, 3)


def test_what_transfers_nothing_is_said_to(tmp_path: Path) -> None:
    files = evaluated(tmp_path, skill=SKILL | {"pretrained": 0.3, "prt": 0.0, "eft": 0.3, "poe": 0.8})
    _, _, comparison = transfer(files.values(), [("small", "large")], loras=(False,))
    verdicts = comparison.set_index(["dataset", "method", "baseline"])["verdict"]
    assert verdicts["gsm8k", "prt", "pretrained"] == "worse"
    assert verdicts["gsm8k", "eft", "pretrained"] == "not told apart"
    assert verdicts["gsm8k", "poe", "pretrained"] == "better"


def test_published_models_stand_in_for_the_target_s_own(tmp_path: Path) -> None:
    files = evaluated(tmp_path, instruct=True, seeds=(0,), alphas=(0.0,))
    few: dict[str, Any] = {"seeds": (0,), "alphas": (0.0,), "loras": (False,), "without": ("ft", "ensemble")}
    _, summary, comparison = transfer(files.values(), [("small", "large")], **few)
    assert "ft" not in set(summary.method)
    assert summary.loc[summary.method == "instruct", ["lora", "seeds"]].to_numpy().tolist() == [[False, 1]] * 5
    assert {"instruct", "source_ft"} <= set(comparison.baseline)


def test_a_written_table_is_read_again(results: Results, tmp_path: Path) -> None:
    table, summary, _ = transfer(results.values(), PAIRS)
    for name, of in (("transfer", table), ("summary", summary)):
        write_table(tmp_path / f"{name}.csv", of)
        again = read_table(tmp_path / f"{name}.csv", list(of.columns))
        assert again["headline"].dtype == again["lora"].dtype == bool
        expected = of.astype({"seed": float} if name == "transfer" else {})
        pd.testing.assert_frame_equal(again, expected, check_dtype=False, check_index_type=False)


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        (("gsm8k", "pretrained", "large"), "gsm8k has no result of 'pretrained' on 'large'; evaluate it"),
        (
            ("gsm8k", "eft", "large", "small", False, 1),
            r"'eft' of 'small' on 'large' \(strength 1, seed 1\); evaluate it",
        ),
        (("ifeval", "ft", "small", False, 2), r"ifeval has no result of 'ft' on 'small' \(seed 2\)"),
        (
            ("gsm8k", "prt", "large", "small", 0.0, True, 0),
            r"'prt' of 'small' on 'large' \(LoRA, alpha 0, strength 1, seed 0\)",
        ),
        (("gsm8k", "poe", "large", "small", False, 0), "'poe' of 'small' on 'large'"),
    ],
)
def test_a_missing_cell_is_named(results: Results, lost: tuple[Any, ...], told: str) -> None:
    assert lost in results
    with pytest.raises(InputError, match=told):
        transfer([path for cell, path in results.items() if cell != lost], PAIRS)


def test_pairs_and_results_that_are_not_there(results: Results) -> None:
    with pytest.raises(InputError, match="gsm8k has no result of 'prt' of 'large' on 'small'"):
        transfer(results.values(), [*PAIRS, ("large", "small")])
    with pytest.raises(InputError, match="no results were given"):
        transfer([], PAIRS)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"documents": "other"}, "a.*and .*b.* measured gsm8k on different examples"),
        ({"protocol": {"shots": 5}}, r"under different protocols \(shots: 0 and 5\); evaluate both again"),
        ({"headline": "flexible-extract"}, "in different metrics"),
        ({}, "which another file holds, too"),
        ({"metrics": {"strict-match": 0.123}}, "corrupt.*strict-match is not the mean of its examples"),
        ({"examples": {"strict-match": ["a"]}, "metrics": {"strict-match": 0.1}}, "corrupt.*value is no number"),
        ({"headline": "exact"}, "corrupt.*no metric 'exact'"),
        ({"documents": None}, "corrupt.*documents: None is not of type 'string'"),
        ({"metrics": {"a": 0, "b": 0}, "examples": {"a": [0], "b": [0, 0]}, "headline": "a"}, "different numbers of"),
    ],
)
def test_results_that_cannot_stand_beside_each_other(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    values = gsm8k(np.random.default_rng(0), 0.5)
    cell = {"method": "pretrained", "target": "small"}
    files = [write_result(tmp_path / "a", values, cell), write_result(tmp_path / "b", values, cell, **changes)]
    with pytest.raises(InputError, match=told):
        transfer(files, PAIRS)


def test_models_may_be_run_differently(tmp_path: Path) -> None:
    """A longer context, a larger batch and another precision do not change what is asked."""
    rng = np.random.default_rng(0)
    files = list(evaluated(tmp_path, seeds=(0,), alphas=(0.0,)).values())
    for path in files:
        result = json.loads(path.read_text())
        how = {"context": int(rng.integers(512, 9000)), "batch": int(rng.integers(1, 64)), "dtype": str(rng.random())}
        path.write_text(json.dumps(result | {"protocol": result["protocol"] | how}))
    assert len(transfer(files, PAIRS, seeds=(0,), loras=(False,), alphas=(0.0,)).transfer) == 2 * (7 * 2 + 7 * 3)


def test_unreadable_results(tmp_path: Path) -> None:
    path = write_result(tmp_path, gsm8k(np.random.default_rng(0), 0.5), {"method": "prt", "target": "a", "alpha": 0.0})
    with pytest.raises(InputError, match=r"corrupt.*'prt' without a source"):
        transfer([path], PAIRS)
    path.write_text(path.read_text()[:100])
    with pytest.raises(InputError, match=r"corrupt.*delete it and make it again"):
        transfer([path], PAIRS)
    with pytest.raises(InputError, match="does not exist"):
        transfer([tmp_path / "nowhere.json"], PAIRS)


def test_several_rewards_on_one_target(tmp_path: Path) -> None:
    """A result with a cell for each is found by all of them, and by no one of them."""
    rng, one = (
        np.random.default_rng(0),
        {"method": "prt", "source": "small", "target": "large", "alpha": 0.0, "seed": 0},
    )
    cells = [
        Cell(dataset="gsm8k", **one, strength=strength, variant=name) for name, strength in (("a", 1.0), ("b", 0.5))
    ]
    values = gsm8k(rng, 0.5)
    path = write_result(tmp_path, values, one)
    content = json.loads(path.read_text()) | {"cell": [cell.model_dump() for cell in cells]}
    path.write_text(json.dumps(content))
    evaluated = Evaluated([path])
    assert (
        evaluated.result(*cells).measures[content["headline"]].values.tolist() == next(iter(values.values())).tolist()
    )
    with pytest.raises(InputError, match=r"gsm8k has no result of 'prt' of 'small' on 'large' \(a, .*; evaluate it"):
        evaluated.result(cells[0])
    for wrong, why in (([], "non-empty|too short"), ([1], "not of type 'object'")):
        path.write_text(json.dumps(content | {"cell": wrong}))
        with pytest.raises(InputError, match=f"is corrupt .*({why})"):
            Evaluated([path])


def test_a_strength_that_was_chosen(tmp_path: Path) -> None:
    """It stands in the row of its seed; a result that does not say it, or says one of another method, is refused."""
    rng = np.random.default_rng(0)
    facts = {"method": "prt_chosen", "source": "small", "target": "large", "alpha": 0.0, "strength": None}
    files = [write_result(tmp_path, gsm8k(rng, 0.5), facts | {"seed": seed}, strength=0.5 + seed) for seed in (0, 1)]
    cells = [Cell(dataset="gsm8k", **facts, seed=seed) for seed in (0, 1)]
    made = tables(cells, Evaluated(files).result)
    assert made.transfer.groupby("seed")["strength"].unique().map(list).tolist() == [[0.5], [1.5]]
    assert made.summary["strength"].isna().all()
    for method, strength in (("prt_chosen", None), ("prt", 0.5)):
        wrong = write_result(tmp_path / f"{method}", gsm8k(rng, 0.5), facts | {"method": method}, strength=strength)
        with pytest.raises(InputError, match=rf"is corrupt \(the chosen strength of '{method}' is {strength}\)"):
            Evaluated([wrong])

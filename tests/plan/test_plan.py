"""The plan: runs, cells and jobs of the demo and the paper, without Snakemake and in a second."""

import copy
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.pipeline import ROOT, counts, snakemake

from prt.errors import InputError
from prt.methods import AS_TEXT, METHODS
from prt.plan import Plan
from prt.plan.checks import ALWAYS
from prt.plan.jobs import Job, Jobs
from prt.plan.printed import printed
from prt.plan.rules import NONE, Rules

Prt = Callable[..., tuple[int, str, str]]


def plan(name: str, **changes: Any) -> Plan:
    return Plan.of(yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()) | changes)


@pytest.fixture(scope="module")
def demo() -> Plan:
    return plan("demo")


@pytest.fixture(scope="module")
def paper() -> Plan:
    return plan("paper")


def test_jobs_are_followed_to_what_they_need() -> None:
    jobs = Jobs()
    jobs.add([Job("last", "c", ("b", "x"), ("c",)), Job("first", "a", (), ("a",)), Job("second", "b", ("a",), ("b",))])
    assert [job.name for job in jobs.needed(["c"])] == ["a", "b", "c"]
    assert jobs.needed(["x"]) == []
    with pytest.raises(InputError, match="unknown job of second 'd'"):
        jobs.get("second", "d")


def test_another_pretraining_begins_with_the_miniatures(demo: Plan) -> None:
    """Their jobs, and no others, hang on its seed, so that what does not read them is not made again."""
    other = plan("demo", pretraining_seed=1)
    changed = {j.rule for key, j in demo.jobs.by_name.items() if j.fingerprint != other.jobs.by_name[key].fingerprint}
    assert changed == {"pretrain", "pretrain_language"}


def test_a_target_of_another_tokenizer(demo: Plan) -> None:
    """It has methods of their own, each with the pretrained source; models without a difference keep theirs."""
    config = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    config["language"]["models"]["m-other"] = {"spec": "a/b", "parameters": 1.0, "tokenizer": "other"}
    for item in ("figure4", "table4"):
        of = config["language"]["bars"].get(item) or config["language"][item]
        of["panels"] = [{"source": "s-poor", "targets": ["m-rich", "m-other"]}]
    config["language"]["methods"] += ["ensemble"]
    language, before = Plan.of(config).language, demo.language
    assert language is not None and before is not None
    rows = [row for row in language.rows("table4") if row.target == "m-other"]
    assert {row.method for row in rows} == {"pretrained", "prt-text", "eft-text", "ft", "source_ft", "reward"}
    assert not {row.method for row in language.rows() if row.target != "m-other"} & set(AS_TEXT.values())
    text = Plan.of(config).jobs.get("evaluate", "m-other")
    needs = {"models/s-poor/config.json", "tuned/s-poor"}
    assert needs <= {need.removeprefix("results/demo/language/") for need in text.needs}
    assert "  s-poor on m-other: as text, with three networks" in printed(Plan.of(config), ["table4"]).splitlines()
    for key, value, sentence in (
        (
            "figure7",
            config["language"]["table4"] | {"alphas": [0, 0.1]},
            "figure7 shows a reward on models with its own",
        ),
        (
            "table3",
            config["language"]["table3"] | {"pairs": [["s-poor", "m-other"]]},
            "table3 shows a reward on models",
        ),
        (
            "benchmarks",
            {"problems": {"task": "gsm8k", "generation": {"top_k": 2}}},
            "'top_k': choose one of: do_sample",
        ),
    ):
        changed = copy.deepcopy(config)
        changed["language"][key] = changed["language"][key] | value if key == "benchmarks" else value
        with pytest.raises(InputError, match=re.escape(sentence)):
            Plan.of(changed)


@pytest.mark.parametrize(
    ("below", "above", "source", "targets"),
    [
        ("demo", "tokenizers", "s-poor", {"m-pieces", "m-threes"}),
        ("paper", "llama_on_qwen", "llama-3.2-1b", {"qwen2.5-1.5b", "qwen2.5-7b"}),
    ],
)
def test_experiments_with_other_tokenizers(below: str, above: str, source: str, targets: set[str]) -> None:
    """On top of another experiment, in which they change nothing else."""
    before, after = plan(below), Plan.read([ROOT / "config" / f"{name}.yaml" for name in (below, above)])
    assert after.items.keys() - before.items.keys() == {"tokenizers"}
    assert before.language is not None and after.language is not None
    more = [cell for cell in after.language.cells() if cell not in before.language.cells()]
    assert {(cell.source, cell.target) for cell in more if METHODS[cell.method].of_texts} == {
        (source, t) for t in targets
    }
    assert all(cell in after.language.cells() for cell in before.language.cells())


def test_models_that_a_reward_is_tuned_beside_take_memory() -> None:
    """Of the paper's size: a model that fits one GPU does not, beside one of 8 billion parameters."""
    language = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())["language"]
    language["variants"] = {"mixed": {"recipe": {"references": ["llama-3-8b"]}}}
    jobs = plan("paper", language=language).jobs
    own, beside = (jobs.get("tune_language", f"llama-3.2-1b/prt_0{name}/0") for name in ("", "-mixed"))
    assert (own.gpus, beside.gpus) == (1, 8) and beside.billions > own.billions + 7


@pytest.mark.parametrize("names", [["portability"], ["paper", "paper_portability"]])
def test_the_portability_study(names: list[str]) -> None:
    """One target for its pictures; every reward is tuned in every way, and the chain's checkpoints are apart."""
    of = Plan.read([ROOT / "config" / f"{name}.yaml" for name in names])
    assert of.vision is not None and of.language is not None
    pictures = {"portability_vision", "portability_language", "bound", "calibration", "ageing"}
    pictures |= {"ageing_language"} if "ageing_language" in of.language.config.bars else set()
    assert {Path(file).stem for file in of.targets()["portability"]} == pictures
    for half in (of.vision, of.language):
        runs = half.runs("digits") if half is of.vision and names == ["portability"] else []
        for source in {run.model for run in runs if run.method == "prt"}:
            assert {run.variant for run in runs if run.model == source} == {None, *half.config.variants}
    reads = {file for item in of.items.values() if item.name in pictures for file in item.needs}
    assert reads <= of.jobs.makers.keys()
    stops = {name: backbone.stop for name, backbone in of.vision.config.backbones.items() if backbone.stop}
    abouts = [of.jobs.get("pretrain", name).about for name in [*stops, *(["rn12-700"] if stops else [])]]
    assert all(about not in abouts[:number] for number, about in enumerate(abouts))


def test_few_and_many_jobs_make_the_same(demo: Plan) -> None:
    """One cell, one result, however jobs are cut: the same runs and rows, every one made by exactly one job."""
    many = plan("demo", jobs="many")
    assert demo.vision is not None and many.vision is not None
    assert demo.language is not None and many.language is not None
    for dataset in demo.vision.prepared:
        assert demo.vision.runs(dataset) == many.vision.runs(dataset)
        assert demo.vision.cells(dataset) == many.vision.cells(dataset)
        assert demo.vision.scores(dataset, "test") == many.vision.scores(dataset, "test")
    assert demo.language.runs() == many.language.runs()
    assert demo.language.rows() == many.language.rows()
    for of in (demo, many):
        folders = [file for rule in ("tune", "tune_language") for job in of.jobs.of(rule) for file in job.makes]
        assert of.vision is not None and of.language is not None
        wanted = [of.vision.folder(run) for dataset in of.vision.prepared for run in of.vision.runs(dataset)]
        wanted += [of.language.folder(run) for run in of.language.runs()]
        for run in wanted:
            assert sum(f"{run}/".startswith(f"{folder}/") for folder in folders) == 1
    assert sum(demo.counts([]).values()) < 60 < sum(many.counts([]).values())
    assert set(demo.everything()) == set(many.everything())


def test_every_need_is_made_or_at_hand(demo: Plan, paper: Plan) -> None:
    for of in (demo, paper):
        files = {need for job in of.jobs.by_name.values() for need in job.needs} - of.jobs.makers.keys()
        assert all(file.startswith("config/published/") for file in files), files
        assert Counter(file for job in of.jobs.by_name.values() for file in job.makes).most_common(1)[0][1] == 1


def test_the_paper_s_numbers(paper: Plan) -> None:
    """Every item at the paper's size."""
    vision, language = (yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())[x] for x in ("vision", "language"))
    figures = [f"figure{n}" for n in "2 3 4 5 6a 6b 7 8 9 10 11 12 13 14".split()]
    assert {*figures, *(f"table{n}" for n in range(1, 8)), "ledger", "beside", "strength"} == set(paper.items)
    backbones = {b for panel in vision["panels"] for b in (panel["source"], *panel["targets"])}
    backbones |= set(vision["table7"]["targets"])
    sources = {panel["source"] for panel in vision["panels"]}
    jobs = paper.counts([])
    assert jobs["prepare"] == len(vision["datasets"]) + 1  # the noisy one
    assert jobs["zero_shot"] == len(vision["datasets"]) * len(backbones) + len(vision["table5"]["targets"])
    entropy = len(vision["figure6"]["alphas"]) - 1  # α = 0 is there anyway
    assert jobs["tune"] == len(vision["datasets"]) * (len(backbones) + len(sources)) + entropy + 1
    assert jobs["fetch_backbone"] == len(backbones)
    assert jobs["fetch_dataset"] == len(vision["datasets"])
    assert jobs["fetch_model"] == 2 * len(language["models"])  # each with its instruct model
    spoken = {panel["source"] for item in language["bars"].values() for panel in item["panels"]}
    entropy = len(language["figure7"]["panels"]) * (len(language["figure7"]["alphas"]) - 1)
    seeds, lora = 2 * (len(language["table4"]["seeds"]) - 1), 2
    assert jobs["tune_language"] == 2 * len(spoken) + entropy + seeds + lora
    three = Plan.read([ROOT / "config" / "paper.yaml", ROOT / "config" / "three_seeds.yaml"]).counts([])
    assert three["tune"] == 3 * jobs["tune"]
    assert three["zero_shot"] == jobs["zero_shot"]


def test_an_item_needs_only_its_own(paper: Plan) -> None:
    vision = paper.vision
    assert vision is not None
    for target in ("cars", "table7", "figure6"):  # each of one data set
        assert paper.counts([target])["zero_shot"] == len(vision.used)
    assert paper.counts(["figure12"])["prepare"] == len(vision.config.figure12 or [])
    assert set(paper.counts(["table1"])) == {"measure_training", "draw"}
    assert not any("llama" in job.name for job in paper.needed(["table4"]))
    assert paper.counts(["table4"])["tune_language"] == 2 * 3
    with pytest.raises(InputError, match=r"unknown item, data set or benchmark 'figure22': did you mean 'figure2'\?"):
        paper.needed(["figure22"])


def test_sizes_of_jobs(paper: Plan, demo: Plan) -> None:
    """A 7B model is tuned on eight GPUs, whose processes load it each; a small one on one; miniatures on none."""
    large, small = (paper.jobs.get("tune_language", f"{name}/prt_0/0") for name in ("llama-2-7b", "qwen2.5-0.5b"))
    assert (large.gpus, large.cores, large.device, small.gpus) == (8, 64, "cuda", 1)
    memory = Rules(paper).memory("tune_language", 16000, 7000, small=4000)

    class Of:
        job = large.name

    assert memory(Of, 2, 64, "tune_language") == 2 * memory(Of, 1, 64, "tune_language") > 2 * 8 * 6.7 * 6000
    assert all(job.gpus == 0 for job in demo.jobs.by_name.values())
    both = paper.jobs.get("evaluate", "llama-2-13b/gsm8k/eft-of-llama-2-7b-ft-seed0")
    assert both.billions == pytest.approx(13.0 + 2 * 6.7)
    assert Rules(demo).names("fetch_model") == NONE


def test_a_backbone_of_one_s_own_is_not_fetched(tmp_path: Path) -> None:
    """Whichever of its names a folder is called by."""
    (tmp_path / "open_clip_config.json").touch()
    content = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    for spec in (str(tmp_path), f"local-dir:{tmp_path}"):
        content["vision"]["backbones"]["rn12-rich"] = {"spec": spec}
        vision = Plan.of(content).vision
        assert vision is not None
        assert vision.fetched("rn12-rich") is None
        assert vision.weights("rn12-rich") == [str(tmp_path)]


def test_a_whole_experiment_on_a_cpu(paper: Plan) -> None:
    """``device: cpu``: the same jobs, none of which asks for a GPU, in fp32, with room for what a GPU would hold."""
    content = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text()) | {"device": "cpu"}
    content["language"]["lora"]["recipe"] = {"precision": "bf16"}  # whatever was asked for
    cpu = Plan.of(content)
    assert cpu.jobs.by_name.keys() == paper.jobs.by_name.keys()
    assert {(job.gpus, job.cores, job.device) for job in cpu.jobs.by_name.values()} == {(0, 1, "cpu")}
    assert cpu.vision is not None and cpu.language is not None
    assert (cpu.vision.precision, cpu.language.precision) == ("fp32", "fp32")
    assert {cpu.language.recipe(run).precision for run in cpu.language.runs()} == {"fp32"}
    assert {cpu.vision.recipe(run).precision for run in cpu.vision.runs("flowers")} == {"fp32"}

    class Of:
        job = "llama-2-7b/prt_0/0"

    memory = Rules(cpu).memory("tune_language", 16000, 7000, small=4000)
    assert memory(Of, 1, 1, "tune_language") > 20 * 6.7 * 1000


def test_whatever_is_measured_is_tuned_and_scored() -> None:
    """Also of variants, which are not tuned further on the noisy images of Table 5."""
    content = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    content["vision"]["variants"] = {"half": {"recipe": {"reference": 0.5}}}
    vision = Plan.of(content).vision
    assert vision is not None
    for dataset in vision.prepared:
        runs = [*vision.runs(dataset), *(run for run in vision.carried() if dataset == vision.noisy)]
        found = {run.variant for run in runs if run.method == "prt"}
        wanted = {cell.variant for cell in vision.cells(dataset) if cell.method == "prt"}
        assert wanted <= found and ("half" in wanted) == (dataset != vision.noisy)


def test_all_methods_are_planned(demo: Plan) -> None:
    assert demo.vision is not None
    assert demo.language is not None
    rows = [cell for dataset in demo.vision.prepared for cell in demo.vision.cells(dataset)]
    # Shapes or tokenizers would have to differ, or rewards be tuned in several ways.
    apart = {"instruct", "difference", "difference_chosen", "prt_best", *AS_TEXT.values()}
    assert {cell.method for cell in rows} == set(METHODS) - apart
    assert {row.method for row in demo.language.rows()} == {*ALWAYS, *demo.language.config.methods}
    assert all(cell == cell.clean() for cell in [*rows, *demo.language.rows()])
    assert all(cell == cell.measured() for cell in demo.language.cells())


def test_variants(demo: Plan) -> None:
    """Rewards beside the experiment's own, of the same rows; what each is tuned beside is made before it."""
    config = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    several = {"references": ["vit-b-poor", "rn12-rich"]}
    config["vision"]["variants"] = {"random": {"recipe": {"reference": [0, 1]}}, "mixed": {"recipe": several}}
    config["language"]["variants"] = {"long": {"alpha": 0.01, "recipe": {"epochs": 3, "references": ["m-rich"]}}}
    found = Plan.of(config | {"jobs": "many"})
    assert found.vision is not None and found.language is not None
    assert demo.vision is not None and demo.language is not None
    for half, own, places in (
        (found.vision, demo.vision, demo.vision.prepared),
        (found.language, demo.language, [None]),
    ):
        for place in places:
            mine = half.cells(place)  # type: ignore[arg-type]
            plain = [cell for cell in mine if cell.variant is None and cell.method != "prt_best"]
            assert plain == own.cells(place)  # type: ignore[arg-type]
    chosen = [cell for cell in found.vision.cells("digits") if cell.method == "prt_best"]
    assert len(chosen) == len({(cell.shots, cell.source, cell.target, cell.seed) for cell in chosen}) == 30
    runs = {run.name: run for run in found.vision.runs("digits") if run.model == "vit-b-poor"}
    assert runs.keys() == {"ft", "prt_0", "prt_0-random", "prt_0-mixed"}
    recipes = {name: found.vision.recipe(run) for name, run in runs.items()}
    assert recipes["prt_0-random"].reference == [0, 1]
    assert recipes["prt_0-mixed"].references == ["rn12-rich"]  # and not itself
    assert recipes["ft"] == recipes["prt_0"] == demo.vision.recipe(runs["ft"])
    job = found.jobs.get("tune", "digits/vit-b-poor/prt_0-mixed/16/0")
    assert "results/demo/vision/zero_shot/digits/rn12-rich" in job.needs
    # A model that only rewards are tuned beside must be what was published, too.
    config["vision"]["backbones"]["rn24-rich"] = config["vision"]["backbones"]["rn12-rich"] | {"architecture": "rn24"}
    config["vision"]["variants"]["mixed"]["recipe"] = {"references": ["rn24-rich"]}
    ledger = Plan.of(config | {"jobs": "many"}).jobs.get("check_zero_shot", "digits")
    assert "results/demo/vision/zero_shot/digits/rn24-rich" in ledger.needs
    tuned = found.jobs.get("tune_language", "s-poor/prt_0.01-long/0")
    assert "results/demo/language/models/m-rich/config.json" in tuned.needs
    rows = [row for row in found.language.rows("figure3") if row.variant]
    assert {(row.method, row.alpha) for row in rows} == {("prt", 0.01), ("reward", 0.01)}
    assert not [row for row in found.language.rows("table6") if row.variant]


def test_weights_are_added_within_one_architecture(paper: Plan) -> None:
    assert paper.vision is not None
    cells = [cell for dataset in paper.vision.datasets for cell in paper.vision.merged(dataset).values()]
    pairs = {(cell.source, cell.target) for cell in cells}
    assert pairs == {("vit-b-16-laion400m", f"vit-b-16-{data}") for data in ("laion2b", "datacomp")}
    job = paper.jobs.get("merge", "cub/vit-b-16-laion400m/vit-b-16-datacomp")
    assert "results/paper/vision/tuned/cub/vit-b-16-laion400m/ft/full/0" in job.needs
    assert paper.language is not None
    pairs = {(row.source, row.target) for row in paper.language.rows() if row.method == "difference"}
    assert {pair for pair in pairs if pair[0] != pair[1]} == {
        ("qwen2-0.5b", "qwen2.5-0.5b"), ("llama-3-8b", "llama-3.1-8b"),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["demo", "paper"])
def test_the_command_line_answers_as_snakemake_does(prt: Prt, name: str, tmp_path: Path) -> None:
    """With the same number of jobs of each rule as a dry run."""
    code, said, _ = prt("plan", "--configfile", ROOT / "config" / f"{name}.yaml")
    assert code == 0
    listed = {}
    for line in said.partition("\njobs (")[2].partition("\nwhat each")[0].splitlines()[1:]:
        if line:
            rule, number, *_ = line.split()
            listed[rule] = int(number)
    (tmp_path / "config").symlink_to(ROOT / "config")
    config = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(tmp_path, "--dry-run")
    assert done.returncode == 0, done.stdout
    assert counts(done.stdout) == listed | {"all": 1}


def test_the_printed_plan(prt: Prt) -> None:
    code, said, _ = prt("plan", "--configfile", ROOT / "config" / "demo.yaml", "table5", "--jobs")
    assert code == 0
    assert "  digits-noise vit-s-poor adapted 16  × 3 seeds" in said
    assert "  tune digits-noise/vit-s-poor\n" in said
    assert "language" not in said.partition("jobs (")[2]
    code, _, complaint = prt("plan", "--configfile", ROOT / "config" / "demo.yaml", "table55")
    assert (code, complaint) == (
        1,
        "prt: error: unknown item, data set or benchmark 'table55': did you mean 'table5'?\n",
    )


def test_names_that_are_taken(demo: Plan) -> None:
    config = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    for name in ("tune", "all", "figure6", "problems"):
        changed = copy.deepcopy(config)
        changed["vision"]["datasets"][name] = changed["vision"]["datasets"]["mnist"]
        with pytest.raises(InputError, match=f"a (data set|benchmark) cannot be called '{name}'"):
            Plan.of(changed)


def again(name: str, place: str, value: Any, jobs: str = "few") -> set[str]:
    """The rules whose jobs are run again where one key of a configuration changes, but for what needs their files."""
    config = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()) | {"jobs": jobs}
    changed = copy.deepcopy(config)
    here: Any = changed
    *folders, key = place.split(".")
    for folder in folders:
        here = here[int(folder) if folder.isdecimal() and not isinstance(here, dict) else folder]
    here[key] = value
    before, after = (Plan.of(content).jobs.by_name for content in (config, changed))
    return {
        rule
        for rule, job in after
        if before.get((rule, job)) is None or _facts(before[rule, job]) != _facts(after[rule, job])
    }


def _facts(job: Job | None) -> tuple[Any, ...]:
    return () if job is None else (job.needs, job.makes, job.fingerprint)


@pytest.mark.parametrize(
    ("name", "place", "value", "rules"),
    [
        ("demo", "vision.figure6.every", 20, {"tune"}),
        ("demo", "vision.table5.recipe.steps", 50, {"tune", "draw"}),
        ("demo", "vision.datasets.mnist.templates", ["a {}"], {"prepare"}),
        ("demo", "vision.strengths", [0, 1], {"tables"}),
        ("demo", "vision.table7.targets", ["rn12-rich"], {"draw"}),
        ("demo", "vision.ledger.tolerance", 0.1, {"check_zero_shot"}),
        ("demo", "vision.costs.repeats", 11, {"measure_training", "measure_inference"}),
        ("demo", "vision.costs.compile", True, {"measure_inference"}),
        ("demo", "vision.recipe.precision", "bf16", {"zero_shot", "tune", "measure_training"}),
        ("demo", "vision.backbones.vit-s-poor.recipe.steps", 401, {"pretrain"}),
        ("demo", "language.benchmarks.problems.limit", 5, {"evaluate", "next_tokens"}),
        ("demo", "language.lora.rank", 4, {"tune_language"}),
        ("demo", "language.data.template", "own", {"tune_language", "evaluate"}),
        ("demo", "language.methods", ["ft", "poe", "reward"], set()),
        ("demo", "language.table3.repeats", 4, {"measure_decoding"}),
        ("demo", "language.next_tokens.figure5.example", 2, {"next_tokens"}),
        ("paper", "vision.backbones.rn50-openai.spec", "RN50-quickgelu/yfcc15m",
         {"fetch_backbone", "zero_shot", "tune", "measure_training", "measure_inference"}),
    ],
)  # fmt: skip
def test_a_changed_key_runs_what_hangs_on_it_again(name: str, place: str, value: Any, rules: set[str]) -> None:
    """What needs the new files runs as well, as Snakemake sees by their times."""
    assert again(name, place, value, "many" if name == "paper" else "few") == rules


def test_only_what_was_compared_is_collected() -> None:
    config = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    del config["vision"]
    for item in ("bars", "figure7", "table4", "table6"):
        del config["language"][item]
    for jobs in ("few", "many"):
        counted = Plan.of(config | {"jobs": jobs}).counts([])
        assert not {"tables", "collect", "evaluate"} & set(counted)
        assert counted["next_tokens"] == counted["measure_decoding"] == 1

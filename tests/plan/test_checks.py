"""Configurations that cannot be: each ends in one sentence that names the place and the remedy."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.pipeline import ROOT

from prt.config import Backbone, Model
from prt.errors import InputError
from prt.miniature import data
from prt.miniature.glyphs import CORPORA
from prt.miniature.pretrain import ARCHITECTURES
from prt.plan import Plan
from prt.plan.checks import MINIATURE, checked, read_config

CONFIG = """
experiment: own
vision:
  backbones:
    tiny: {architecture: rn12, corpus: poor, recipe: {steps: 5}}
    other: {spec: RN50-quickgelu/openai}
  datasets:
    digits: {source: miniature:digits, shots: {16: {steps: 2}, full: {augment: true}}}
  recipe: {precision: bf16, augment: false}
  seeds: [0]
  panels: [{source: tiny, targets: [other]}]
  strengths: [0, 1]
  figure6: {dataset: digits, shots: 16, source: tiny, targets: [other], alphas: [0, 0.1], every: 1}
  table7: {dataset: digits, shots: 16, source: tiny, targets: [other]}
  table5: {dataset: digits, shots: 16, source: tiny, targets: [other], noise: 0.1, recipe: {steps: 1}}
  costs: {training: [tiny], inference: [[tiny, other]], batch: 2, repeats: 2}
  ledger: {published: published.csv}
"""

INF = float("inf")
TOGETHER = {"datasets": ["digits", "mnits"], "shots": 16, "source": "tiny", "targets": ["other"], "strengths": [0, 1]}
# Path of the key to set, its value (None: take it out) → what the sentence must say.
VISION: list[tuple[str, Any, str]] = [
    ("backbones.tiny.architecture", "rn-12", "architecture of the configuration 'rn-12': did you mean 'rn12'?"),
    ("backbones.tiny.corpus", "rihc", "'rihc': did you mean 'rich'?"),
    ("backbones.tiny.corpus", 3, "vision.backbones.tiny.corpus of the configuration '3': choose one of: poor, rich"),
    ("backbones.tiny.spec", "RN50/openai", "backbones.tiny of the configuration needs either 'spec' alone"),
    ("backbones.tiny", {}, "backbones.tiny of the configuration needs either 'spec' alone"),
    ("backbones.tiny", {"spec": 1}, "backbones.tiny.spec of the configuration is 1, which is wrong"),
    ("backbones.tiny", {"spce": "RN50/openai"}, "'spce': did you mean 'spec'?"),
    ("backbones.tiny.recipe.precision", "bf16", "precision of the configuration cannot be set there: pretraining"),
    ("backbones.tiny.stop", 6, "vision.backbones.tiny.stop of the configuration is 6, but its recipe has 5 steps"),
    ("backbones.other.stop", 2, "backbones.other of the configuration needs either 'spec' alone"),
    ("backbones.tiny.recipe.augment", True, "augment of the configuration cannot be set there: the corpus"),
    ("backbones.tiny.recipe.reference", 0, "recipe.reference of the configuration cannot be set there: noth"),
    ("recipe.reference", [1, 0], "'reference' of a training recipe is [1, 0]; it should be a number from 0"),
    ("recipe.references", ["tiny", "tiny"], "should name each model once"),
    ("recipe.references", ["tinny"], "unknown backbone in vision.recipe.references of the configuration 'tinny'"),
    ("variants", {"half": {"recipe": {"reference": -1}}}, "'reference' of a training recipe is -1; it should be a nu"),
    ("variants", {"half": {"alpha": -1}}, "vision.variants.half.alpha of the configuration is -1"),
    ("variants", {"half": {"recipe": {"precision": "fp32"}}}, "variants.half.recipe.precision of the configuration ca"),
    ("variants", {"two": {"recipe": {"references": ["x"]}}}, "unknown backbone in vision.variants.two.recipe.referenc"),
    ("table5.recipe.references", ["tiny"], "cannot be set there: a reward is tuned further beside what it was tuned"),
    ("backbones.tiny.paper", "RN-50", "unknown value of vision.backbones.tiny.paper of the configuration 'RN-50'"),
    ("backbones.tiny.recipe.step", 1, "'step': did you mean 'steps'?"),
    ("datasets.digits.shots.16.precision", "bf16", "16.precision of the configuration cannot be set there: set it in"),
    ("datasets.digits.source", "miniature:digit", "unknown miniature data set 'digit': did you mean 'digits'?"),
    ("datasets.digits.source", "minature:digits", "source of the configuration 'minature': did you mean 'miniature'?"),
    ("datasets.digits.source", "paper:flower", "unknown data set of the paper 'flower': did you mean 'flowers'?"),
    ("figure12", ["digit"], "unknown data set of figure12 'digit': did you mean 'digits'?"),
    ("figure12", ["digits"], "figure12 names all data sets, and leaves none for Figure 2"),
    ("table5.noise", 0, "vision.table5.noise of the configuration is 0, which is wrong"),
    ("table5.shots", 32, "unknown number of shots of table5 '32': choose one of: 16, full"),
    ("table5.targets", ["tinny"], "unknown backbone 'tinny': did you mean 'tiny'?"),
    ("datasets.digits-noise", {"source": "miniature:mnist", "shots": {}}, "digits-noise.shots of the configuration"),
    ("datasets.digits-noise", {"source": "miniature:mnist", "shots": {"full": {}}}, "cannot be called 'digits-noise'"),
    ("together", TOGETHER, "unknown data set of together 'mnits': did you mean 'digits'?"),
    ("together", TOGETHER | {"strengths": [0]}, "together.strengths of the configuration puts nothing on"),
    ("together", TOGETHER | {"datasets": ["digits"] * 2}, "together.datasets of the configuration has the entry"),
    ("ageing", {"source": "other", "targets": ["tiny"]}, "ageing puts rewards of 'other' on 'tiny', but no panel has"),
    ("costs.training", ["othr"], "unknown backbone of costs 'othr': did you mean 'other'?"),
    ("costs.inference", [["tiny"]], "vision.costs.inference.0 of the configuration is ['tiny'], which is wrong"),
    ("ledger.beyond", "halt", "unknown value of vision.ledger.beyond of the configuration 'halt'"),
    ("ledger.tolerance", -1, "vision.ledger.tolerance of the configuration is -1, but must be 0 or more"),
    ("backbones.other.spec", "ViT-B-61/openai", "other.spec of the configuration: unknown open_clip model 'ViT-B-61'"),
    ("backbones.other.spec", "RN50/opnai", "unknown pretrained tag or checkpoint file of RN50 'opnai': did you mean"),
    ("backbones.other.spec", "RN50/openai", "need the model RN50-quickgelu"),
    ("backbones.other.spec", "local-dir:/nowhere", "there is no backbone in /nowhere (no open_clip_config.json)"),
    ("backbones.other.spec", "hf-hub:a/b", "download it with `hf download a/b --local-dir FOLDER`, and write"),
    ("datasets.digits.templates", ["a {}", "a digit"], "has the template 'a digit' without {}: write that where"),
    ("datasets.digits.classes", ["one", "two", "one"], "classes of the configuration has the class name 'one' twice"),
    ("datasets.digits.classes", {"1": "one", "i": "one"}, "has the class name 'one' twice: tell the classes apart"),
    ("datasets.digits.classes", ["one", " "], "classes of the configuration has an empty class name: give it one"),
    ("downloads", "", "vision.downloads of the configuration is ''"),
    ("recipe.steps", 2.0, "'steps' of a training recipe is 2.0; it should be a valid integer"),
    ("recipe.steps", 2**31, "'steps' of a training recipe is 2147483648; it should be less than"),
    ("recipe.beta2", 1, "'beta2' of a training recipe is 1; it should be less than 1"),
    ("seeds", [2**32], "vision.seeds.0 of the configuration is 4294967296, which is wrong"),
    ("recipe.precision", "bf61", "shots.16 of the configuration: unknown precision 'bf61': did you mean 'bf16'?"),
]  # fmt: skip

LANGUAGE = """
models:
  s: {size: s, corpus: poor, recipe: {steps: 5}}
  m: {size: m, corpus: rich, recipe: {steps: 5}}
data: {source: "miniature:chats"}
recipe: {epochs: 1}
lora: {rank: 4}
seeds: [0]
methods: [poe, ft]
benchmarks: {problems: {task: gsm8k, data: miniature}, instructions: {task: ifeval, data: miniature}}
bars: {figure3: {benchmarks: [problems], panels: [{source: s, targets: [m]}]}}
table4: {benchmarks: [problems], panels: [{source: s, targets: [m]}]}
table6: {benchmarks: [problems], panels: [{source: s, targets: [m]}]}
variants: {half: {recipe: {reference: 0.5}}}
"""

CHAINS = {"benchmarks": ["problems"], "panels": [{"source": s, "targets": [t]} for s, t in ("sm", "ms")]}
OTHER = {"spec": "a/b", "parameters": 1.0, "tokenizer": "other"}
BOTH = {
    "chats": {"a": "miniature:problems", "b": "miniature:instructions"}, "source": "s", "targets": ["m"],
    "benchmarks": ["problems", "instructions"], "strengths": [0, 1],
}  # fmt: skip
SPOKEN: list[tuple[str, Any, str]] = [
    ("benchmarks.gsm9k", {}, "unknown benchmark 'gsm9k': did you mean 'gsm8k'?"),
    ("benchmarks.problems.data", "embedded", "'data: embedded' of the benchmark problems is now called"),
    ("benchmarks.problems.shot", 1, "unknown setting of the benchmark problems, 'shot': did you mean 'shots'?"),
    ("benchmarks.mbpp", {}, "runs programs that a model wrote; allow that with `unsafe_code: true`"),
    ("benchmarks.figure3", {"task": "gsm8k"}, "a benchmark cannot be called 'figure3'"),
    ("bars.figure3.benchmarks", ["problem"], "unknown benchmark of figure3 'problem': did you mean 'problems'?"),
    ("bars.figure2", {}, "language.bars"),
    ("table4.panels.0.targets", ["mm"], "unknown language model 'mm'"),
    ("models.s", {"spec": "/nowhere", "parameters": 1}, "'s' is to be in /nowhere, where there is no config.json"),
    ("models.s.stop", 6, "language.models.s.stop of the configuration is 6, but its recipe has 5 steps"),
    ("bars.ageing_language", CHAINS, "ageing_language has several panels, but is one chain of targets"),
    ("models.s.size", None, "language.models.s of the configuration needs either 'spec' and 'parameters'"),
    ("models.m", OTHER | {"parameters": None}, "language.models.m of the configuration needs either 'spec' and"),
    (
        "models.m.tokenizer",
        "other",
        "models.m of the configuration is a miniature, whose tokenizer is pieces or threes",
    ),
    ("lora", None, "table6 compares rewards tuned by LoRA, but the configuration has no 'lora'"),
    ("recipe.epoch", 1, "unknown key in language.recipe of the configuration 'epoch': did you mean 'epochs'?"),
    ("lora.recipe", {"lr": -1}, "language.lora.recipe of the configuration: 'lr' of a tuning recipe is -1"),
    ("methods", ["poo"], "unknown value of language.methods of the configuration 'poo': did you mean 'poe'?"),
    (
        "methods",
        ["prt_chosen"],
        "'prt_chosen' of language.methods has a strength that is chosen, but the configuration",
    ),
    ("methods", ["adapted"], "unknown value of language.methods of the configuration 'adapted'"),
    ("methods", ["poe", "poe"], "language.methods of the configuration has the entry 'poe' twice"),
    ("data.source", "embedded:chats", "'embedded:' in language.data.source is now called 'miniature:'"),
    ("data.source", "json:x", "'json': did you mean 'jsonl'?"),
    ("data.template", "tullu", "unknown value of language.data.template of the configuration 'tullu': did you mean"),
    ("data.source", "miniature:chat", "unknown miniature chats 'chat': did you mean 'chats'?"),
    (
        "together",
        BOTH | {"chats": {"a": "miniature:problem", "b": "jsonl:b"}},
        "chats 'problem': did you mean 'pro",
    ),
    ("together", BOTH | {"chats": {"a": "jsonl:a"}}, "language.together.chats of the configuration"),
    (
        "together",
        BOTH | {"chats": {"half": "jsonl:a", "b": "jsonl:b"}},
        "has 'half', as a variant is called; rename",
    ),
    (
        "together",
        BOTH | {"benchmarks": ["problems", "problem"]},
        "unknown benchmark of together 'problem': did you",
    ),
    ("together", BOTH | {"targets": ["mm"]}, "unknown language model of together 'mm'"),
    ("in_one_job", True, "the configuration's key 'language.in_one_job' is now 'jobs: few' at the top level"),
    ("recipe", {"batch": 10}, "'batch' of a tuning recipe is 10, which cannot be made of 'per_device_batch' 4; change"),
    ("benchmarks.problems.shots", 2.0, "the setting 'shots' of the benchmark problems is wrong: 2.0 is not of type"),
    (
        "benchmarks.problems.generation",
        {"p": [INF]},
        "problems.generation.p.0 of the configuration is inf, but must be",
    ),
    (
        "figure7",
        {"benchmarks": ["problems"], "panels": [{"source": "s", "targets": ["m"]}], "alphas": [0]},
        "language.figure7.alphas of the configuration sweeps nothing: add an α above 0",
    ),
    ("seeds", [], "language.seeds of the configuration"),
    ("seeds", [0.0], "language.seeds.0 of the configuration"),
]

TOP: list[tuple[str, Any, str]] = [
    ("vison", {}, "unknown key in the top level of the configuration 'vison': did you mean 'vision'?"),
    ("vision.strenghts", [1], "unknown key in vision of the configuration 'strenghts': did you mean 'strengths'?"),
    ("vision.seeds", None, "the configuration lacks 'seeds' in vision: add it"),
    ("vision.seeds_in_one_job", True, "key 'vision.seeds_in_one_job' is now 'jobs: few' at the top level"),
    ("vision.figure6.alphas", [-0.1], "vision.figure6.alphas.0 of the configuration is -0.1, but must be 0 or more"),
    ("vision.figure6.shots", 17, "unknown number of shots of figure6 '17': did you mean '16'?"),
    ("vision.table7.dataset", "digit", "unknown data set of table7 'digit': did you mean 'digits'?"),
    ("vision.datasets.figure2", {"source": "miniature:mnist", "shots": {"full": {}}}, "cannot be called 'figure2'"),
    ("vision.datasets.digits.source", "embedded:digits", "'embedded:' is now called 'miniature:'"),
    ("vision.recipe.lr", float("nan"), "vision.recipe.lr of the configuration is nan, but must be a finite number"),
    ("vision.strengths", [INF], "vision.strengths.0 of the configuration is inf, but must be a finite number"),
    ("vision.strengths", [1], "vision.strengths of the configuration sweeps nothing, as 1 is always computed: add"),
    ("vision.strengths", [0, 1, 1.0], "vision.strengths of the configuration has the entry 1 twice"),
    ("vision.figure6.alphas", [-0.0], "vision.figure6.alphas of the configuration sweeps nothing: add an α above 0"),
    (
        "vision.figure6.alphas",
        [0.1234567, 0.12345671],
        "figure6.alphas of the configuration has the entry 0.123457 twice",
    ),
    ("experiment", "a b", "experiment of the configuration is 'a b'"),
    ("experiment", "demo\n", "experiment of the configuration is 'demo\\n'"),
    ("experiment", None, "the configuration lacks 'experiment' in the top level"),
    ("jobs", "some", "unknown value of jobs of the configuration 'some': choose one of: few, many"),
    ("vision", None, "the configuration has neither 'vision' nor 'language'"),
    ("vision", [], "vision of the configuration"),
]


def changed(config: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The configuration with one key set, or taken out."""
    config = copy.deepcopy(config)
    here: Any = config
    *folders, key = place.split(".")
    for folder in folders:
        here = here[int(folder) if isinstance(here, list) else folder if folder in here else int(folder)]
    if value is None:
        del here[key]
    else:
        here[key] = value
    return config


WHOLE = yaml.safe_load(CONFIG)
OTHER: dict[str, Any] = {"experiment": "own", "language": yaml.safe_load(LANGUAGE)}
CASES = [(WHOLE, f"vision.{place}", value, sentence) for place, value, sentence in VISION]
CASES += [(OTHER, f"language.{place}", value, sentence) for place, value, sentence in SPOKEN]
CASES += [(WHOLE, place, value, sentence) for place, value, sentence in TOP]


@pytest.mark.parametrize(("whole", "place", "value", "sentence"), CASES)
def test_bad_configurations(whole: dict[str, Any], place: str, value: Any, sentence: str) -> None:
    Plan.of(copy.deepcopy(whole))
    with pytest.raises(InputError) as refusal:
        Plan.of(changed(whole, place, value))
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_names_are_those_of_the_package() -> None:
    assert all(callable(getattr(data, name)) for name in MINIATURE)
    for architecture in ARCHITECTURES:
        for corpus in CORPORA:
            Backbone(architecture=architecture, corpus=corpus, recipe={})
    Model(size="l", corpus="rich", recipe={})


def test_files_on_top_of_each_other(tmp_path: Path) -> None:
    """Later keys win at every level, as Snakemake merges its configuration files."""
    paper = [ROOT / "config" / "paper.yaml"]
    one, three = read_config(paper), read_config([*paper, ROOT / "config" / "three_seeds.yaml"])
    assert (one.vision.seeds, three.vision.seeds) == ([0], [0, 1, 2])  # type: ignore[union-attr]
    assert three.language == one.language
    for content, told in ((b"a: [", "cannot be read"), (b"\xff\xfe", "cannot be read"), (b"- 1", "must be a mapping")):
        file = tmp_path / "config.yaml"
        file.write_bytes(content)
        with pytest.raises(InputError, match=told):
            read_config([file])
    with pytest.raises(InputError, match="does not exist; correct the path"):
        read_config([tmp_path / "none.yaml"])
    with pytest.raises(InputError, match="must be a mapping"):
        checked([])


def test_defaults_are_filled_in_once() -> None:
    config = checked(WHOLE)
    assert config.jobs == "many"
    assert config.vision is not None
    assert config.vision.datasets["digits"].validation == 0.1
    assert set(config.vision.datasets["digits"].shots) == {"16", "full"}


def test_a_configuration_without_an_end() -> None:
    endless: dict[str, Any] = {"experiment": "own"}
    endless["vision"] = endless
    with pytest.raises(InputError, match="holds itself, or is nested without end"):
        checked(endless)


# Files that an experiment would look for after minutes or days.
@pytest.mark.parametrize(
    ("whole", "place", "value", "sentence"),
    [
        (
            WHOLE,
            "vision.ledger.published",
            "none.csv",
            r"none.csv does not exist, and nothing makes it: check_zero_shot",
        ),
        (WHOLE, "vision.datasets.digits.source", "folder:/none", "digits is to be in /none, where there is no folder"),
        (WHOLE, "vision.datasets.digits.source", "huggingface:./none", "digits is to be in ./none, where there is no"),
        (
            OTHER,
            "language.data.source",
            "jsonl:none.jsonl",
            "none.jsonl does not exist, .*: prepare_chats data reads",
        ),
        (OTHER, "language.benchmarks.problems.data", "/none", "/none does not exist, and nothing makes it: evaluate"),
    ],
)
def test_missing_inputs(
    whole: dict[str, Any], place: str, value: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("published.csv").touch()
    Plan.of(whole).check_inputs()
    with pytest.raises(InputError, match=sentence):
        Plan.of(changed(whole, place, value)).check_inputs()


def test_ways_to_draw_answers_that_a_target_of_another_tokenizer_has_not(tmp_path: Path) -> None:
    """Told before the first job, also of a task file."""
    across = changed(OTHER, "language.models.m.tokenizer", "threes")
    del across["language"]["table6"]
    Plan.of(across)
    with pytest.raises(
        InputError, match=r"unknown key of the generation of problems for a target of another .*'top_p'"
    ):
        Plan.of(changed(across, "language.benchmarks.problems.generation", {"top_p": 0.9}))
    file = tmp_path / "sums.yaml"
    file.write_text("task: sums\ngeneration_kwargs: {top_p: 0.9}\n")
    own = {"task": str(file)}
    with pytest.raises(InputError, match=r"problems is to be answered with 'top_p' \(.*sums.yaml\), which a target of"):
        Plan.of(changed(across, "language.benchmarks.problems", own))
    Plan.of(changed(OTHER, "language.benchmarks.problems", own))


def test_what_has_no_picture_on_a_target_of_another_tokenizer() -> None:
    """A chain of targets shows PRT, which is called otherwise there; so is all that a study of variants would show."""
    across = changed(OTHER, "language.models.m.tokenizer", "threes")
    del across["language"]["table6"]
    chain = {"benchmarks": ["problems"], "panels": [{"source": "s", "targets": ["m"]}]}
    with pytest.raises(InputError, match="ageing_language shows a reward on models with its own tokenizer, but s"):
        Plan.of(changed(across, "language.bars.ageing_language", chain))
    varied = {"half": {"recipe": {"reference": 0.5}}}
    assert "portability_language" not in Plan.of(changed(across, "language.variants", varied)).items
    assert "portability_language" in Plan.of(changed(OTHER, "language.variants", varied)).items


def test_a_study_of_few_rewards() -> None:
    """No correlation of two, and no gain on the source itself alone."""
    varied = changed(WHOLE, "vision.variants", {"half": {"recipe": {"reference": 0.5}}})
    items = Plan.of(varied).items
    assert {"portability_vision", "calibration"} <= items.keys() and "bound" not in items
    three = changed(varied, "vision.variants.third", {"recipe": {"reference": 0.3}})
    assert "bound" in Plan.of(three).items

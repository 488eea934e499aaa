"""Bad command lines and configurations: one sentence that names the culprit, and nothing written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_scores import scores

from prt.config import MINIATURE, check
from prt.errors import InputError
from prt.miniature import data
from prt.miniature.glyphs import CORPORA
from prt.miniature.pretrain import ARCHITECTURES

Prt = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[1]
SCHEMA: dict[str, Any] = yaml.safe_load((ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text())

HEADER = "dataset,shots,source,target,method,alpha,strength,metric,value,low,high"
FILES = {
    "empty.csv": f"{HEADER}\n",
    "blank.csv": "",
    "ragged.csv": f"{HEADER}\n1\n{',' * 30}\n",
    "whole.csv": f"{HEADER}\ndigits,16,old,new,prt,0,1,top1,0.5,0.4,0.6\n",
    "lacking.csv": f"{HEADER.replace('value,', '')}\ndigits,16,old,new,prt,0,1,top1,0.4,0.6\n",
}
BARS = "figure transfer-bars --table whole.csv --out out"
PANEL = '[{"source":"old","targets":["new"]}]'
TUNE = "vision tune --spec s --backbone b --dataset d --data data --head h --out out --checkpoints out --seed 0"
PREPARE = "vision prepare --source miniature:digits --out out"
PRETRAIN = "vision pretrain --architecture rn12 --corpus poor --out out --checkpoint out/c"
SCORE = "vision score --spec s --backbone b --dataset d --data data --head h --out out"
PREDICT = "predict image.png --reward reward --target RN50/openai"

# Command line → what its last line must say.
BAD = {
    "figure figur2 --table whole.csv --out out": "unknown figure 'figur2'",
    "figure strenght --table whole.csv --out out": "unknown figure 'strenght': did you mean 'strength'?",
    "figure strength --table none.csv --out out": "the table none.csv does not exist",
    "figure strength --table empty.csv --out out": "the table empty.csv is empty",
    "figure strength --table blank.csv --out out": "the table blank.csv cannot be read",
    "figure strength --table ragged.csv --out out": "the table ragged.csv cannot be read",
    "figure strength --table lacking.csv --out out": "the table lacking.csv has no column 'value'",
    "figure entropy-curves --table whole.csv --out out": "the table whole.csv has no column 'iteration'",
    "figure entropy-transfer --table lacking.csv --out out": "the table lacking.csv has no column 'value'",
    "figure theory-table --table whole.csv --out out": "the table whole.csv has no column 'seed'",
    f"figure transfer-bars --table lacking.csv --out out --panels {PANEL}": "lacking.csv has no column 'value'",
    f"{BARS} --panels {{": "--panels must be a JSON list",
    f"{BARS} --panels []": "--panels must be a JSON list of one or more",
    f"{BARS}": "--panels must be a JSON list of one or more",
    f"{BARS} --panels {{}}": "{} is not of type 'array'",
    f'{BARS} --panels [{{"source":"old"}}]': "its part 0 is wrong: 'targets' is a required property",
    f'{BARS} --panels [{{"source":"old","targets":"new"}}]': "its part 0.targets is wrong: 'new' is not of",
    f"{BARS} --panels {PANEL} --select {{": "--select must be a JSON object",
    f"{BARS} --panels {PANEL} --select []": "--select must be a JSON object",
    f'{BARS} --panels {PANEL} --select {{"source":{{}}}}': "--select must be a JSON object",
    f'{BARS} --panels {PANEL} --select {{"dataste":"x"}}': "'dataste': did you mean 'dataset'?",
    f'{BARS} --panels {PANEL} --select {{"dataset":"x"}}': "whole.csv has no row with",
    "collect none.csv --out out": "the table none.csv does not exist",
    "collect whole.csv blank.csv --out out": "the table blank.csv cannot be read",
    "curves none --out out": "none/manifest.json does not exist",
    "transfer scores --pair tiny --out out": "--pair is 'tiny', but must be SOURCE:TARGET",
    "transfer scores --pair tiny: --out out": "--pair is 'tiny:', but must be SOURCE:TARGET",
    "transfer scores --pair a:b --out out": "the score file scores is truncated or corrupt",
    "transfer none --pair a:b --out out": "the score file none does not exist",
    "transfer scores --pair a:b --strength nan --out out": "--strength is nan",
    f"{PREPARE} --classes [": "--classes must be a JSON list of strings, but cannot be read",
    f'{PREPARE} --classes ["a",2]': "--classes must be a JSON list of strings, but its part 1 is wrong: 2 is not of",
    f'{PREPARE} --classes "one"': "--classes must be a JSON list of strings",
    f"{PREPARE} --templates {{}}": "--templates must be a JSON list of strings",
    f"{PREPARE} --templates a": "--templates must be a JSON list of strings, but cannot be read",
    f"{PREPARE} --validation 1": "--validation is 1.0",
    f"{PREPARE} --validation nan": "--validation is nan",
    f"{PREPARE} --test -0.1": "--test is -0.1",
    "vision prepare --source miniature:digit --out out": "unknown miniature data set 'digit': did you mean 'digits'?",
    f"{PRETRAIN} --recipe {{": "--recipe must be a JSON object",
    f"{PRETRAIN} --recipe []": "--recipe must be a JSON object",
    f'{PRETRAIN} --recipe {{"step":1}}': "unknown key of a training recipe 'step': did you mean 'steps'?",
    f'{PRETRAIN} --recipe {{"lr":"fast"}}': "'lr' of the recipe is 'fast'",
    f"{PRETRAIN} --seed -1": "'--seed': Input should be greater than or equal to 0",
    f"{SCORE} --recipe 7": "--recipe must be a JSON object",
    f"{SCORE} --workers -1": "'--workers': Input should be greater than or equal to 0",
    f"{TUNE} --method prt --regimes {{": "--regimes must be a JSON object",
    f"{TUNE} --method prt --regimes []": "--regimes must be a JSON object",
    f'{TUNE} --method prt --regimes {{"16":1}}': "its part 16 is wrong: 1 is not of type 'object'",
    f'{TUNE} --method prt --regimes {{"ful":{{}}}}': "'ful' does not match",
    f"{TUNE} --method prt --regimes {{}} --seed -1": "'--seed': Input should be greater than or equal to 0",
    f"{PREDICT} --top 0": "'--top': Input should be greater than or equal to 1",
    f"{PREDICT} --device gpu": "--device is 'gpu', but must be cpu, cuda",
    f"{PREDICT} --device meta": "--device is 'meta', but must be cpu, cuda",
    f"{PREDICT} --device cuda:99": "no GPU that torch can use as --device cuda:99",
    f"{PREDICT}": "the reward manifest reward/manifest.json does not exist",
    "predct": "No such command 'predct'",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_command_lines(prt: Prt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).write_text(content)
    scores().save(Path("scores"))
    Path("scores").write_bytes(Path("scores").read_bytes()[:-3])
    before = sorted(tmp_path.rglob("*"))
    code, out, complaint = prt(*line.split())
    assert code in (1, 2)
    assert BAD[line] in complaint.splitlines()[-1]
    assert "Traceback" not in out + complaint
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unknown_method(prt: Prt, dataset: Path, tmp_path: Path) -> None:
    paths = ["--data", dataset, "--head", tmp_path / "h", "--out", tmp_path / "out", "--checkpoints", tmp_path / "out"]
    names = ["--spec", "s", "--backbone", "b", "--dataset", "d", "--seed", 0, "--regimes", '{"4": {}}']
    code, _, complaint = prt("vision", "tune", *paths, *names, "--method", "tf")
    assert (code, complaint) == (1, "prt: error: unknown tuning method 'tf': did you mean 'ft'?\n")
    assert not list(tmp_path.iterdir())


def test_tables_under_each_other(prt: Prt, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(FILES["whole.csv"])
    assert prt("collect", tmp_path / "a.csv", tmp_path / "b.csv", "--out", tmp_path / "c.csv")[0] == 0
    header, row = FILES["whole.csv"].splitlines()
    assert (tmp_path / "c.csv").read_text().splitlines() == [header, row, row]


def test_the_schema_names_what_the_package_has(tmp_path: Path) -> None:
    backbone = SCHEMA["$defs"]["backbone"]["properties"]
    assert backbone["architecture"]["enum"] == list(ARCHITECTURES)
    assert backbone["corpus"]["enum"] == list(CORPORA)
    from prt.vision.datasets import prepare

    assert all(callable(getattr(data, name)) for name in MINIATURE)
    with pytest.raises(InputError, match=f"choose one of: {', '.join(MINIATURE)}"):
        prepare("miniature:?", tmp_path / "out", root=tmp_path)


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
  strengths: [1]
  figure6: {dataset: digits, shots: 16, source: tiny, targets: [other], alphas: [0], every: 1}
  table7: {dataset: digits, shots: 16, source: tiny, targets: [other]}
  table5: {dataset: digits, shots: 16, source: tiny, targets: [other], noise: 0.1, recipe: {steps: 1}}
  costs: {training: [tiny], inference: [[tiny, other]], batch: 2, repeats: 2}
  ledger: {published: published.csv}
"""

# Path of the key to set, its value → what the sentence must say.
WRONG: list[tuple[str, Any, str]] = [
    ("backbones.tiny.architecture", "rn-12", "architecture of the configuration 'rn-12': did you mean 'rn12'?"),
    ("backbones.tiny.corpus", "rihc", "'rihc': did you mean 'rich'?"),
    ("backbones.tiny.corpus", 3, "vision.backbones.tiny.corpus of the configuration '3': choose one of: poor, rich"),
    ("backbones.tiny.spec", "RN50/openai", "backbones.tiny of the configuration needs either 'spec' alone"),
    ("backbones.tiny", {}, "backbones.tiny of the configuration needs either 'spec' alone"),
    ("backbones.tiny", {"spec": 1}, "backbones.tiny.spec of the configuration is wrong"),
    ("backbones.tiny", {"spce": "RN50/openai"}, "'spce': did you mean 'spec'?"),
    ("backbones.tiny.recipe.precision", "bf16", "precision of the configuration cannot be set there: pretraining"),
    ("backbones.tiny.recipe.augment", True, "augment of the configuration cannot be set there: the corpus"),
    ("backbones.tiny.recipe.step", 1, "'step': did you mean 'steps'?"),
    ("datasets.digits.shots.16.precision", "bf16", "16.precision of the configuration cannot be set there: set it in"),
    ("datasets.digits.source", "miniature:digit", "unknown miniature data set 'digit': did you mean 'digits'?"),
    ("datasets.digits.source", "minature:digits", "vision.datasets.digits.source of the configuration is wrong"),
    ("datasets.digits.source", "paper:flower", "unknown data set of the paper 'flower': did you mean 'flowers'?"),
    ("figure12", ["digit"], "unknown data set of figure12 'digit': did you mean 'digits'?"),
    ("figure12", ["digits"], "figure12 names all data sets, and leaves none for Figure 2"),
    ("table5.noise", 0, "vision.table5.noise of the configuration is wrong"),
    ("table5.shots", 32, "unknown number of shots of table5 '32': choose one of: 16, full"),
    ("table5.targets", ["tinny"], "unknown backbone 'tinny': did you mean 'tiny'?"),
    ("datasets.digits-noise", {"source": "miniature:mnist", "shots": {}}, "digits-noise.shots of the configuration"),
    ("datasets.digits-noise", {"source": "miniature:mnist", "shots": {"full": {}}}, "cannot be called 'digits-noise'"),
    ("costs.training", ["othr"], "unknown backbone of costs 'othr': did you mean 'other'?"),
    ("costs.inference", [["tiny"]], "vision.costs.inference.0 of the configuration is wrong"),
    ("ledger.beyond", "halt", "unknown value of vision.ledger.beyond of the configuration 'halt'"),
    ("ledger.tolerance", -1, "vision.ledger.tolerance of the configuration is -1, but must be 0 or more"),
    ("recipe.precision", "bf61", "vision.recipe.precision of the configuration 'bf61': did you mean 'bf16'?"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "sentence"), WRONG)
def test_bad_configurations(place: str, value: Any, sentence: str) -> None:
    config = yaml.safe_load(CONFIG)
    check(config, SCHEMA)
    here = config["vision"]
    *folders, key = place.split(".")
    for folder in folders:
        here = here[folder]
    here[key] = value
    with pytest.raises(InputError) as told:
        check(config, SCHEMA)
    assert sentence in str(told.value)

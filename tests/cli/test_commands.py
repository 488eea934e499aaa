"""The command line: every rule has a command, and bad lines end in one sentence with nothing written."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers.pipeline import ROOT

from prt.cli import app, imports, run
from prt.plan import Plan
from prt.plan.jobs import RULES

Prt = Callable[..., tuple[int, str, str]]
PREDICT = "predict image.png --reward reward --target RN50/openai"
GENERATE = "generate text --reward reward --target target"
EVALUATE = "evaluate gsm8k --reward reward --target target --out out"
# Command line → what its last line must say.
BAD = {
    "predct": "No such command 'predct'",
    "run tun x --config demo.yaml": "No such command 'tun'",
    "run tune x --config demo.yaml": "unknown job of tune 'x'",
    "run tune digits/vit-s-por --config demo.yaml": "did you mean 'digits/vit-s-poor'?",
    "run tune x --config none.yaml": "the configuration none.yaml does not exist; correct the path.",
    "run tune x --config wrong.yaml": "unknown key in the top level of the configuration 'vison'",
    "run tune x": "Missing option '--config'",
    "run fetch_model x --config demo.yaml": "unknown job of fetch_model 'x'",
    "run tune digits/vit-s-poor --config demo.yaml --device cuda:99": "no GPU that torch can use as --device cuda:99",
    "run tables vision-digits --config demo.yaml": "zero_shot/digits/vit-s-poor/test.safetensors does not exist",
    "run draw figure2 --config demo.yaml": "digits/summary.csv does not exist",
    "run collect language --config demo.yaml": "problems/transfer.csv does not exist",
    "plan": "Missing option '--configfile'",
    "plan --configfile none.yaml": "the configuration none.yaml does not exist",
    "plan --configfile demo.yaml figure22": "unknown item, data set or benchmark 'figure22': did you mean 'figure2'?",
    f"{PREDICT} --top 0": "'--top': Input should be greater than or equal to 1",
    f"{PREDICT} --device gpu": "--device is 'gpu', but must be cpu, cuda",
    f"{PREDICT} --device meta": "--device is 'meta', but must be cpu, cuda",
    f"{PREDICT}": "there is no reward in reward (no manifest.json); name a folder",
    f"{GENERATE} --precision fp8": "unknown precision 'fp8'",
    f"{GENERATE} --temperature -1": "'--temperature': Input should be greater than or equal to 0",
    f"{GENERATE} --method eft": "there is no reward in reward (no manifest.json); name a folder",
    f"{EVALUATE} --set shots": "--set takes KEY=VALUE",
    f"{EVALUATE}": "there is no reward in reward (no manifest.json); name a folder",
    "compose --reward reward --target target": "Missing option '--out'",
    "compose --reward reward --target target --out out": "there is no reward in reward (no manifest.json)",
    "push reward owner/name": "there is no reward in reward (no manifest.json); name a folder",
    "pull owner/name wrong.yaml": "wrong.yaml is there already; choose another folder, or remove it.",
    "import language /none --base /none --out made": "there is no folder /none",
    "import language model --out made": "there is no folder model",
    "import vision none.pt --base RN50/openai --out made": "Missing option '--classes'",
    "import vision none.pt --base RN50/openai --out made --classes none.txt": "class names none.txt does not exist",
    "import images": "No such command 'images'",
    f"{GENERATE}": "there is no reward in reward (no manifest.json); name a folder",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_command_lines(prt: Prt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo.yaml").write_text((ROOT / "config" / "demo.yaml").read_text())
    Path("wrong.yaml").write_text("experiment: own\nvison: {}\n")
    before = sorted(tmp_path.rglob("*"))
    code, out, complaint = prt(*line.split())
    assert code in (1, 2)
    assert BAD[line] in complaint.splitlines()[-1]
    assert "Traceback" not in out + complaint
    assert sorted(tmp_path.rglob("*")) == before


def test_every_rule_is_a_command() -> None:
    commands = {command.name for command in run.registered_commands}
    rules = set()
    for name in ("demo", "paper"):
        plan = Plan.of(yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()))
        rules |= {rule for rule, _ in plan.jobs.by_name}
    assert rules == commands == set(RULES)


def test_every_command_that_is_named_exists() -> None:
    """In messages of the package, in rules and in documents."""
    commands = {str(command.callback.__name__) for command in app.registered_commands if command.callback}
    commands |= {f"import {command.name}" for command in imports.registered_commands} | {"import"}
    commands |= {f"run {command.name}" for command in run.registered_commands} | {"run", "run RULE"}
    pages = [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*.smk"), *(ROOT / "docs").glob("*.md")]
    pages += [ROOT / "README.md", ROOT / "config" / "README.md", ROOT / "slurm" / "README.md"]
    found = 0
    for page in pages:
        for named in re.findall(r"(?:`|^ *\"?|    )prt ([a-z]+(?: [A-Za-z_]+)?)", page.read_text(), re.MULTILINE):
            known = {named, named.partition(" ")[0]} & commands
            assert known, f"{page.name}: prt {named}"
            found += 1
    assert found > 20

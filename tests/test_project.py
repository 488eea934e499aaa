"""The project's own promises: versions that agree, a command line that answers at once, no pickle."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from helpers.pipeline import ROOT
from pydantic import BaseModel

from prt.config import Config, Part
from prt.language.recipe import Recipe as Tuning
from prt.plan import Plan
from prt.recipe import Recipe


def test_environment_and_pyproject_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == project["dependencies"]
    assert all("==" in line for line in pip)
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pinned = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    for line in [*pip, *project["optional-dependencies"]["test"]]:
        name, _, version = line.partition("==")
        assert pinned[name.partition("[")[0].lower().replace("_", "-")] == version


def test_the_environment_of_vllm_agrees_where_vllm_lets_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment-vllm.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert [line for line in pip if line not in project["dependencies"]] == ["vllm==0.32.0"]
    left_out = {line.partition("==")[0] for line in project["dependencies"]} - {line.partition("==")[0] for line in pip}
    assert left_out == {"torch", "torchvision", "transformers", "numpy", "snakemake-executor-plugin-slurm"}


def test_help_answers_without_heavy_imports() -> None:
    code = "import sys; sys.argv = ['prt', '--help']\nimport prt.cli\ntry: prt.cli.main()\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'open_clip', 'pandas', 'transformers'}\n"
    code += "print('loaded:', sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded: []" in done.stdout
    assert "predict" in done.stdout


def test_every_key_is_documented() -> None:
    """config/README.md names every key that a configuration may have, and every key of a recipe."""
    text = (ROOT / "config" / "README.md").read_text()
    kinds: list[type[BaseModel]] = [*Part.__subclasses__(), Recipe, Tuning]
    for kind in kinds:
        kinds += [below for below in kind.__subclasses__() if below not in kinds]
    assert Config in kinds
    missing = sorted({key for kind in kinds for key in kind.model_fields if f"`{key}`" not in text})
    assert not missing


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "config" / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_readme_s_own_configurations_are_accepted(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "tickets.yaml").write_text("task: tickets")
    for block in blocks:
        Plan.of(yaml.safe_load(block.replace("/data/tickets.yaml", str(tmp_path / "tickets.yaml"))))


def test_no_pickle() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text
        assert "torch.save(" not in text
        assert "torch.load(" not in text
